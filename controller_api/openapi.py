"""The OpenAPI document: FastAPI's own, with the plain routes described by hand, every error, and who may call.

A stranger should be able to write a learner from it: see `INTRODUCTION`.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services import __version__
from services import errors as e
from services import messages as m
from services.config import RunConfig
from services.wire import MEDIA_TYPE

from .gate import JSON, POLICIES, Policy
from .problems import status_of

INTRODUCTION = f"""\
One model is trained on data that stays where it is. **Learners** make outbound calls only; weights travel as
MessagePack documents (`{MEDIA_TYPE}`), everything else is JSON. Every error is a problem document (RFC 9457).

### A learner in seven calls
1. `POST /v1/learners` with `{{"name": "mine"}}` under the enrolment token (none is needed when the controller runs
   open). Keep `id` and `token`; send the token from now on: `Authorization: Bearer <token>`.
2. `GET /v1/learners/<id>/task?wait=30`: 204 means that there is none yet, ask again. A task stays on offer until it is
   done, so a lost answer loses nothing.
3. Its `kind` says what to do. `init`: send your initial weights. `train`: get the model, train it on your data, send
   the new weights. `evaluate`: get the model, send its scores. Anything else: `POST /v1/tasks/<task>/failure` with
   `{{"error": "unsupported-task"}}`.
4. `GET` the model at `task.model.url`, resolved against the URL of the task call (it may be relative). Keep it by its
   digest: the model that you evaluate is the one that you train next.
5. `PUT` the result to `task.result.url`, resolved in the same way: for `init` and `train` a weights document, for
   `evaluate` JSON `{{"metrics": {{"accuracy": 0.9}}, "metadata": {{"num_evaluation_examples": 100}}}}`. Repeating it is
   safe: the same body gets the same receipt. 409 and 410 mean that it is no longer wanted: go to 2.
6. While you work longer than `task.heartbeat_s`: `POST /v1/learners/<id>/heartbeat` with `{{"task_id": "…"}}`; 409 or
   410 mean that you may drop the task.
7. `DELETE /v1/learners/<id>` when you leave. A poll that answers 410 `federation-over` means that all is done.

### The weights document
A MessagePack map, readable by any MessagePack library:

```
{{"metrics":  {{"loss": 0.3}},                       # updates only; finite numbers or null
 "metadata": {{"num_training_examples": 600}},       # updates only; what the run's scaling_factor needs
 "tensors":  [{{"name": "0", "dtype": "float32", "shape": [2, 3], "data": <24 bytes>}}, …]}}
```
`data` is the tensor's memory: little-endian, C order, as many bytes as shape and dtype say. `dtype` is one of float16,
bfloat16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64, bool. An update has the same
tensors as the model that it was trained from: names, order, shapes, dtypes. Optional: `"trainable": false` on a tensor
(buffers such as BatchNorm's statistics), `"pad"` (zeros that align `data`; readers ignore it), and at the document's
end `"extra"`: a map of name to tensors outside the model. With `scaling_factor` `NumTrainingExamples` (the default)
`metadata` needs `num_training_examples`; with `NumCompletedBatches`, `num_completed_batches`.
"""

BINARY = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary", "description": "a weights document"}}}
OPEN_PAGES = {"text/plain": {"schema": {"type": "string"}}}
MESSAGES: list[type[BaseModel]] = [
    m.Task,
    m.Receipt,
    m.Heartbeat,
    m.Failure,
    m.EvaluationResult,
    m.Reference,
    m.Event,
    m.Problem,
    RunConfig,
]


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of `app`; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Federated learning over HTTP",
            version=__version__,
            description=INTRODUCTION,
            routes=app.routes,
            tags=[{"name": name} for name in ("learners", "tasks", "models", "runs", "federation")],
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        _, made = models_json_schema(
            [(kind, "validation") for kind in MESSAGES],
            ref_template="#/components/schemas/{model}",
        )
        for name, schema in made.get("$defs", {}).items():
            schemas.setdefault(name, schema)
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in PLAIN.items():
            document["paths"].setdefault(path, {}).update(operations)
        for path, methods in POLICIES.items():
            for method, policy in methods.items():
                if operation := document["paths"].get(path, {}).get(method.lower()):
                    _finish(operation, path, method, policy)
        app.openapi_schema = document
    return app.openapi_schema


def _finish(operation: dict[str, Any], path: str, method: str, policy: Policy) -> None:
    """Who may call, and every error."""
    if policy.roles:
        roles = ", ".join(sorted(policy.roles))
        operation["security"] = [{"token": []}]
        operation["description"] = f"{operation.get('description', '')}\n\nToken: {roles}.".strip()
    operation["responses"].pop("422", None)
    for status, kinds in _errors(path, method, policy).items():
        names = ", ".join(f"`{kind.name}`" for kind in kinds)
        answer: dict[str, Any] = {
            "description": names,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if status in (429, 503, 507):
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        operation["responses"][str(status)] = answer
    for name in ("learner_id", "task_id", "run_id", "digest"):
        if f"{{{name}}}" in path:
            described = [one for one in operation.setdefault("parameters", []) if one["name"] == name]
            if not described:
                operation["parameters"].append(
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                )


def _errors(path: str, method: str, policy: Policy) -> dict[int, list[type[e.FederationError]]]:
    kinds: list[type[e.FederationError]] = list(SPECIFIC.get((method, path), []))
    if policy.roles:
        kinds += [e.Unauthenticated, e.Forbidden]
    if policy.media:
        kinds += [e.NotParseable, e.TooLarge, e.UnsupportedMediaType, e.BodyTooSlow]
        if JSON[0] in policy.media:
            kinds.append(e.InvalidRequest)
    found: dict[int, list[type[e.FederationError]]] = {}
    for kind in kinds:
        same = found.setdefault(status_of(kind), [])
        if kind not in same:
            same.append(kind)
    return dict(sorted(found.items()))


CLOSED = [e.RoundClosed, e.TaskVoid]
UPDATE = [e.MalformedUpdate, e.ShapeMismatch, e.NonFiniteUpdate, e.InvalidWeight]
STORING = [e.StoreUnavailable, e.DiskFull]
SPECIFIC: dict[tuple[str, str], list[type[e.FederationError]]] = {
    ("POST", "/v1/learners"): [e.NameTaken, e.FederationOver, e.Busy],
    ("GET", "/v1/learners/{learner_id}"): [e.UnknownLearner],
    ("GET", "/v1/learners/{learner_id}/task"): [e.NotParseable, e.UnknownLearner, e.FederationOver],
    ("POST", "/v1/learners/{learner_id}/heartbeat"): [e.UnknownLearner, e.UnknownTask, *CLOSED],
    ("GET", "/v1/models/{digest}"): [e.UnknownModel, e.RangeNotSatisfiable, e.StoreUnavailable],
    ("PUT", "/v1/models/{digest}"): [e.DigestMismatch, e.MalformedUpdate, e.NonFiniteUpdate, *STORING],
    ("PUT", "/v1/tasks/{task_id}/result"): [e.UnknownTask, e.DifferentBody, *CLOSED, *UPDATE, *STORING],
    ("POST", "/v1/tasks/{task_id}/failure"): [e.UnknownTask, *CLOSED],
    ("POST", "/v1/runs"): [e.InvalidConfig, e.UnknownModel, e.RunActive, e.DifferentBody, e.FederationOver],
    ("GET", "/v1/runs/{run_id}"): [e.UnknownRun],
    ("GET", "/v1/runs/{run_id}/rounds"): [e.UnknownRun],
    ("GET", "/v1/runs/{run_id}/results"): [e.UnknownRun],
    ("GET", "/v1/runs/{run_id}/model"): [e.UnknownRun, e.UnknownModel, e.InvalidRequest, e.RangeNotSatisfiable],
    ("POST", "/v1/runs/{run_id}/stop"): [e.UnknownRun],
    ("POST", "/v1/runs/{run_id}/rounds"): [e.UnknownRun, e.NotManual, e.TaskVoid],
    ("GET", "/v1/events"): [e.NotParseable],
}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _weights_answers(first: str) -> dict[str, Any]:
    tag = {"ETag": {"schema": {"type": "string"}, "description": "the digest, a strong validator"}}
    return {
        "200": {"description": first, "content": BINARY, "headers": tag},
        "206": {"description": "The part asked for by `Range: bytes=first-last`", "content": BINARY},
        "304": {"description": "`If-None-Match` names it: the caller holds it"},
    }


PLAIN: dict[str, dict[str, Any]] = {
    "/v1/learners/{learner_id}/task": {
        "get": {
            "tags": ["tasks"],
            "summary": "The next task",
            "description": "Waits up to `wait` seconds for a task (long poll). The same task is offered until its"
            " result is taken, it fails, or it is void. Counts as a heartbeat.",
            "operationId": "task",
            "parameters": [_query("wait", "seconds, 0 to 60", type="number", default=0, examples=[30])],
            "responses": {
                "200": {
                    "description": "A task. Its urls are relative to this request's.",
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Task"},
                            "example": {
                                "id": "5f0c1d2e3a4b5c6d",
                                "kind": "train",
                                "run_id": "0a1b2c3d4e5f6071",
                                "round": 1,
                                "model": {
                                    "digest": "sha256-" + "0" * 64,
                                    "url": "../../models/sha256-" + "0" * 64,
                                    "size": 19345,
                                },
                                "inputs": {},
                                "result": {"url": "../../tasks/5f0c1d2e3a4b5c6d/result"},
                                "config": {"epochs": 1, "learning_rate": 0.05, "round": 1},
                                "expires_in_s": 3600.0,
                                "heartbeat_s": 10.0,
                            },
                        }
                    },
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
            "requestBody": {"content": _json("Heartbeat"), "required": False},
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
            "responses": _weights_answers("The weights document"),
        },
        "put": {
            "tags": ["models"],
            "summary": "Put an initial model",
            "description": "For `initial_model` of a run. The digest is `sha256-` and the hex sha256 of the body.",
            "operationId": "put_model",
            "requestBody": {"content": BINARY, "required": True},
            "responses": {
                "201": {"description": "Held", "content": _json("Reference")},
                "200": {"description": "It was held before", "content": _json("Reference")},
            },
        },
    },
    "/v1/tasks/{task_id}/result": {
        "put": {
            "tags": ["tasks"],
            "summary": "The result of a task",
            "description": "`init` and `train`: a weights document (a train update needs the `metadata` that the run's"
            " scaling factor reads). `evaluate`: JSON. May be repeated: the same body gets the same receipt, another"
            " body is a 409. A refused body changes nothing.",
            "operationId": "put_result",
            "requestBody": {"content": {**BINARY, **_json("EvaluationResult")}, "required": True},
            "responses": {
                "201": {"description": "Taken", "content": _json("Receipt")},
                "200": {"description": "Taken before: the same receipt", "content": _json("Receipt")},
            },
        }
    },
    "/v1/tasks/{task_id}/failure": {
        "post": {
            "tags": ["tasks"],
            "summary": "The task could not be done",
            "description": "`unsupported-task` for a kind that the learner does not know, else the reason. The round"
            " goes on without this learner.",
            "operationId": "post_failure",
            "requestBody": {"content": _json("Failure"), "required": True},
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
            "parameters": [_query("which", "which model", type="string", enum=["latest", "best"], default="latest")],
            "responses": _weights_answers("The weights document"),
        }
    },
    "/v1/events": {
        "get": {
            "tags": ["federation"],
            "summary": "The log, as it happens",
            "description": "Server-sent events; each `data` is an Event. With `Last-Event-ID` it begins after that"
            " event (0: with the oldest that is kept), else with what happens next.",
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
        "get": {"tags": ["federation"], "summary": "The process answers", "responses": {"200": {"description": "ok"}}}
    },
    "/readyz": {
        "get": {
            "tags": ["federation"],
            "summary": "The controller takes work",
            "responses": {"200": {"description": "ready"}, "503": {"description": "it is ending"}},
        }
    },
    "/metrics": {
        "get": {
            "tags": ["federation"],
            "summary": "Metrics for Prometheus",
            "responses": {"200": {"description": "text format", "content": OPEN_PAGES}},
        }
    },
}
