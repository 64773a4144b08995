"""The routes that FastAPI does not describe, described by hand: what every round takes, models, events, health."""

from __future__ import annotations

from typing import Any

from services.weights import MEDIA_TYPE

BINARY = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary", "description": "a weights document"}}}
# What most generators know how to send as bytes comes first: they take the first that they know.
SENT = {"application/octet-stream": BINARY[MEDIA_TYPE], **BINARY}
TEXT = {"text/plain": {"schema": {"type": "string"}}}
STATUS = {
    "application/json": {
        "schema": {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    }
}


TASK_ID, RUN_ID, DIGEST = "5f0c1d2e3a4b5c6d", "0a1b2c3d4e5f6071", "sha256-" + "0" * 64

JOINING = {"name": "hospital-3", "num_training_examples": 600}
JOINED = {
    "id": "9d3b7c1e5f2a4860",
    "name": "hospital-3",
    "state": "active",
    "token": "vQ0mE2m6m5cQ1zvC8y3T0n4nXw0bJcZk7lq9r1s2t3u",
    "num_training_examples": 600,
    "labels": {},
    "kinds": ["init", "train", "evaluate"],
    "joined_at": "2025-01-01T12:00:00.000Z",
    "last_seen": "2025-01-01T12:00:00.000Z",
    "last_seen_s": 0.0,
}
KNOWN = {key: value for key, value in JOINED.items() if key != "token"} | {"last_seen_s": 41.5}
TASK = {
    "id": TASK_ID,
    "kind": "train",
    "run_id": RUN_ID,
    "round": 1,
    "model": {"digest": DIGEST, "url": f"../../models/{DIGEST}", "size": 19345},
    "inputs": {},
    "result": {"url": f"../../tasks/{TASK_ID}/result"},
    "config": {"seed": 3418754198, "epochs": 1, "learning_rate": 0.05, "round": 1},
    "encoding": None,
    "expires_in_s": 3600.0,
    "heartbeat_s": 10.0,
}
RECEIPT = {"task_id": TASK_ID, "kind": "train", "run_id": RUN_ID, "round": 1, "learner": "hospital-3", "size": 19402}
SCORES = {"metrics": {"accuracy": 0.9, "loss": 0.31}, "metadata": {"num_evaluation_examples": 100}}
BEAT = {"task_id": TASK_ID, "progress": {"epoch": 1, "batch": 20, "loss": 0.31}}
REFERENCE = {"digest": DIGEST, "url": DIGEST, "size": 19345}


def _json(name: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}, "example": example}}


def _query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


WHICH = _query("which", "which model", type="string", enum=["latest", "best"], default="latest")


def _header(name: str, description: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}, "description": description}}


def _sent(name: str, description: str, kind: str, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": description, "schema": {"type": kind}}


HELD = _sent("If-None-Match", "ETags that the caller holds: 304 when the model is one of them", "string", False)
PART = [
    _sent("Range", "one range, `bytes=first-last`: 206; several, or none that can be read: the whole", "string", False),
    _sent("If-Range", "an ETag: `Range` counts only if the model is that one", "string", False),
    HELD,
]


UPLOAD_STATE = {
    **_header("Upload-Offset", "bytes that are here"),
    **_header("Upload-Complete", "`?1` when the result was taken, else `?0`"),
    **_header("Upload-Length", "bytes of the whole, when they are known"),
}


def _weights_answers(first: str) -> dict[str, Any]:
    tag = {**_header("ETag", "the digest in quotes, a strong validator"), **_header("Accept-Ranges", "`bytes`")}
    part = {**_header("Content-Range", "`bytes first-last/size`"), **tag}
    return {
        "200": {"description": first, "content": BINARY, "headers": tag},
        "206": {"description": "The part asked for by `Range: bytes=first-last`", "content": BINARY, "headers": part},
        "304": {"description": "`If-None-Match` names it: the caller holds it", "headers": tag},
    }


def _head_answers() -> dict[str, Any]:
    """What HEAD of weights is answered: as GET without a range, but for the body."""
    answers = _weights_answers("The model is held; `Content-Length` is its size")
    return {"200": {key: value for key, value in answers["200"].items() if key != "content"}, "304": answers["304"]}


PLAIN: dict[str, dict[str, Any]] = {
    "/v1/learners": {
        "post": {
            "tags": ["learners"],
            "summary": "Join",
            "description": "Enrol (under the enrolment token: 201, with the learner's own `token`, shown once), or"
            " report back after a\n"
            "restart (under the learner's own token: 200, same id). The same name again is a 409 while its holder is"
            " alive;\n"
            "after that the newcomer replaces it. With an `Idempotency-Key` that nobody can guess the call may be"
            " repeated when\n"
            "its answer was lost: the learner is the same, the token a new one.",
            "operationId": "join",
            "parameters": [
                {
                    "name": "idempotency-key",
                    "in": "header",
                    "required": False,
                    "schema": {
                        "anyOf": [{"type": "string", "minLength": 16, "maxLength": 200}, {"type": "null"}],
                        "title": "Idempotency-Key",
                    },
                }
            ],
            "requestBody": {"content": _json("JoinRequest", JOINING), "required": True},
            "responses": {
                "201": {
                    "description": "Enrolled. `token` is in this answer only",
                    "content": _json("Learner", JOINED),
                },
                "200": {
                    "description": "Known by its own token: same id, same token",
                    "content": _json("Learner", KNOWN),
                },
            },
        }
    },
    "/v1/learners/{learner_id}/task": {
        "get": {
            "tags": ["tasks"],
            "summary": "The next task",
            "description": "Waits up to `wait` seconds for a task (long poll). The same task is offered until its"
            " result is taken, it fails, or it is void. Counts as a heartbeat.",
            "operationId": "task",
            "parameters": [
                _query(
                    "wait",
                    "seconds, 0 to 60 (more counts as 60); at most 50 behind a proxy, most of which give up after 60 s",
                    type="number",
                    default=0,
                    examples=[30],
                )
            ],
            "responses": {
                "200": {
                    "description": "A task. Its urls are relative to this request's.",
                    "content": _json("Task", TASK),
                },
                "204": {"description": "No task yet: ask again"},
            },
        }
    },
    "/v1/learners/{learner_id}/heartbeat": {
        "post": {
            "tags": ["tasks"],
            "summary": "I am alive",
            "description": "Renews the lease. With a task it also asks whether the task is still wanted (409, 410:"
            " no), and may tell how far it is.",
            "operationId": "heartbeat",
            "requestBody": {"content": _json("Heartbeat", BEAT), "required": False},
            "responses": {"204": {"description": "Go on"}},
        }
    },
    "/v1/models/{digest}": {
        "get": {
            "tags": ["models"],
            "summary": "A model",
            "description": "A weights document, the same bytes for ever: keep it by its digest. A learner may get"
            " the models that its open tasks name. HEAD, `Range`, `If-Range` and `If-None-Match` work.",
            "operationId": "get_model",
            "parameters": PART,
            "responses": _weights_answers("The weights document"),
        },
        "head": {
            "tags": ["models"],
            "summary": "How large a model is",
            "description": "Whether the controller holds it, and how many bytes it has.",
            "operationId": "head_model",
            "parameters": [HELD],
            "responses": _head_answers(),
        },
        "put": {
            "tags": ["models"],
            "summary": "Put an initial model",
            "description": "For `initial_model` of a run. The digest is `sha256-` and the hex sha256 of the body.",
            "operationId": "put_model",
            "requestBody": {"content": SENT, "required": True},
            "responses": {
                "201": {"description": "Held", "content": _json("Reference", REFERENCE)},
                "200": {"description": "It was held before", "content": _json("Reference", REFERENCE)},
            },
        },
    },
    "/v1/tasks/{task_id}/result": {
        "put": {
            "tags": ["tasks"],
            "summary": "The weights that a task made",
            "description": "Of `init` and `train`: a weights document (a train update needs the `metadata` that the"
            " run's scaling factor and rule read). May be repeated: the same body gets the same receipt, another body"
            " is a 409. A refused body changes nothing. Scores are taken here, too, as JSON, as the versions up to 0.1"
            " sent them.",
            "operationId": "put_result",
            "requestBody": {"content": SENT, "required": True},
            "responses": {
                "201": {"description": "Taken", "content": _json("Receipt", RECEIPT)},
                "200": {"description": "Taken before: the same receipt", "content": _json("Receipt", RECEIPT)},
            },
        },
        "head": {
            "tags": ["tasks"],
            "summary": "How much of the result is here",
            "description": "For an upload that was cut (IETF draft-ietf-httpbis-resumable-upload): go on at"
            " `Upload-Offset` with PATCH. `Upload-Complete: ?1` means that the result was taken.",
            "operationId": "result_offset",
            "responses": {"204": {"description": "See the headers", "headers": UPLOAD_STATE}},
        },
        "patch": {
            "tags": ["tasks"],
            "summary": "A part of the result",
            "description": "Appends the body to what is here. The last part carries `Upload-Complete: ?1` and is"
            " answered as PUT of the whole would be; a first part that is not the last says `Upload-Length`. With no"
            " body, at the end of a result that was taken, it gets the receipt again.",
            "operationId": "append_result",
            "parameters": [
                _sent("Upload-Offset", "where the part begins", "integer"),
                _sent("Upload-Complete", "?1 with the last part, else ?0", "string"),
                _sent("Upload-Length", "bytes of the whole, in a first part that is not the last", "integer", False),
            ],
            "requestBody": {
                "content": {"application/partial-upload": {"schema": {"type": "string", "format": "binary"}}},
                "required": True,
            },
            "responses": {
                "201": {"description": "Taken", "content": _json("Receipt", RECEIPT)},
                "200": {"description": "Taken before: the same receipt", "content": _json("Receipt", RECEIPT)},
                "204": {"description": "Kept; more is to come", "headers": UPLOAD_STATE},
            },
        },
        "delete": {
            "tags": ["tasks"],
            "summary": "Forget the parts",
            "description": "What came of an unfinished upload is dropped; the task is as before.",
            "operationId": "cancel_result",
            "responses": {"204": {"description": "Forgotten"}},
        },
    },
    "/v1/tasks/{task_id}/scores": {
        "put": {
            "tags": ["tasks"],
            "summary": "The scores of an evaluation",
            "description": "Of `evaluate`. May be repeated: the same body gets the same receipt, another one is a 409.",
            "operationId": "put_scores",
            "requestBody": {"content": _json("EvaluationResult", SCORES), "required": True},
            "responses": {
                "201": {"description": "Taken", "content": _json("Receipt", RECEIPT | {"kind": "evaluate"})},
                "200": {
                    "description": "Taken before: the same receipt",
                    "content": _json("Receipt", RECEIPT | {"kind": "evaluate"}),
                },
            },
        }
    },
    "/v1/tasks/{task_id}/failure": {
        "post": {
            "tags": ["tasks"],
            "summary": "The task could not be done",
            "description": "`unsupported-task` for a kind that the learner does not know, else why, in one line, and"
            " apart, if the learner may tell it, the traceback. The round goes on without this learner.",
            "operationId": "post_failure",
            "requestBody": {"content": _json("Failure", {"error": "unsupported-task"}), "required": True},
            "responses": {"204": {"description": "Noted"}},
        }
    },
    "/v1/runs/{run_id}/model": {
        "get": {
            "tags": ["runs"],
            "summary": "The model of a run",
            "description": "The newest community model, the final one after the end; or the best by the run's metric"
            " (the termination's `evaluation_metric`, else accuracy, else loss).",
            "operationId": "run_model",
            "parameters": [WHICH, *PART],
            "responses": _weights_answers("The weights document"),
        },
        "head": {
            "tags": ["runs"],
            "summary": "Which model a run has",
            "description": "The digest, as `ETag`, and how many bytes it has.",
            "operationId": "head_run_model",
            "parameters": [WHICH, HELD],
            "responses": _head_answers(),
        },
    },
    "/v1/events": {
        "get": {
            "tags": ["federation"],
            "summary": "The log, as it happens",
            "description": "Server-sent events; each `data` is an Event. With `Last-Event-ID` it begins after that"
            " event (0: with the oldest that is kept), else with what happens next. Progress is told as it happens"
            " and is left out of what is told again.",
            "operationId": "events",
            "parameters": [{"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "integer"}}],
            "responses": {
                "200": {
                    "description": "Events, for ever",
                    "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}}},
                }
            },
        }
    },
    "/healthz": {
        "get": {
            "tags": ["federation"],
            "summary": "The process answers",
            "description": "Whatever else is the matter.",
            "operationId": "healthz",
            "responses": {"200": {"description": "ok", "content": STATUS}},
        }
    },
    "/readyz": {
        "get": {
            "tags": ["federation"],
            "summary": "The controller takes work",
            "description": "Not while it is ending, and not while its model store does not answer.",
            "operationId": "readyz",
            "responses": {
                "200": {"description": "ready", "content": STATUS},
                "503": {"description": "it is ending, or its model store does not answer", "content": STATUS},
            },
        }
    },
    "/metrics": {
        "get": {
            "tags": ["federation"],
            "summary": "Metrics for Prometheus",
            "description": "Counters and gauges of this process.",
            "operationId": "metrics",
            "responses": {"200": {"description": "text format", "content": TEXT}},
        }
    },
}

# What the controller itself sends to a learner that gave a callback_url.
WEBHOOKS: dict[str, Any] = {
    "poll-now": {
        "post": {
            "tags": ["learners"],
            "summary": "A task waits, or the federation is over",
            "description": "Sent to the `callback_url` of a learner; it says nothing but to poll now, and may be lost."
            " Of Standard Webhooks: refuse what is five minutes old or early, an id that was seen, and a wrong"
            " signature. It is tried three times within seconds, and redirects are not followed.",
            "operationId": "poll_now",
            "security": [],
            "parameters": [
                _sent("webhook-id", "unique for a message; the same when it is repeated", "string"),
                _sent("webhook-timestamp", "seconds since 1970", "integer"),
                _sent(
                    "webhook-signature",
                    "`v1,` and the base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`; the key is the base64 after"
                    " `whsec_` in `webhook_secret` of the answer to the enrolment",
                    "string",
                ),
            ],
            "requestBody": {
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"type": {"type": "string", "const": "poll-now"}},
                            "required": ["type"],
                        }
                    }
                },
                "required": True,
            },
            "responses": {
                "2XX": {"description": "Heard; answer at once and poll afterwards"},
                "4XX": {"description": "Refused: it is not tried again, but for 408 and 429"},
                "5XX": {"description": "Not heard: it is tried again"},
            },
        }
    }
}
