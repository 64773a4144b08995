"""The OpenAPI document: FastAPI's own, with the plain routes described by hand, every error, and who may call.

A stranger should be able to write a learner from it alone: a test does. So should generators: tests run two.
"""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.models import Schema
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services import __version__
from services import errors as e
from services import messages as m
from services.config import RunConfig

from ..problems import status_of
from ..tokens import INVALID_TOKEN
from .gate import ID, JSON, POLICIES, SEGMENTS, Policy
from .guide import answered, introduction
from .operations import PLAIN, WEBHOOKS

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
TAGS = {
    "learners": "Who takes part: enrolling, leaving, being let back.",
    "tasks": "What a learner does: the next task, its result, being alive meanwhile.",
    "models": "Weights documents by their digests.",
    "runs": "Training runs: starting, following and ending them.",
    "federation": "The whole at a glance, its log, and the controller's process.",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of `app`; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Federated learning over HTTP",
            version=__version__,
            description=introduction(),
            routes=app.routes,
            servers=[{"url": ".", "description": "this controller, below whatever prefix a proxy gives it"}],
            tags=[{"name": name, "description": words} for name, words in TAGS.items()],
            contact={"name": "whoever runs this controller"},
            license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        joining = Schema.model_validate(m.JoinRequest.model_json_schema())  # as FastAPI writes bodies that it reads
        schemas["JoinRequest"] = joining.model_dump(mode="json", by_alias=True, exclude_none=True)
        _, made = models_json_schema(
            [(kind, "validation") for kind in MESSAGES],
            ref_template="#/components/schemas/{model}",
        )
        for name, schema in made.get("$defs", {}).items():
            schemas.setdefault(name, schema)
        # Extensible: more names may come. An `enum` would have generated clients refuse them.
        schemas["Problem"]["properties"]["type"]["x-extensible-enum"] = [f"/errors/{one.name}" for one in answered()]
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in copy.deepcopy(PLAIN).items():
            document["paths"].setdefault(path, {}).update(operations)
        for path, methods in POLICIES.items():
            for method, policy in methods.items():
                for named in (method, "HEAD") if method == "GET" else (method,):
                    if operation := document["paths"].get(path, {}).get(named.lower()):
                        _finish(operation, path, named, policy)
        document["webhooks"] = copy.deepcopy(WEBHOOKS)
        app.openapi_schema = document
    return app.openapi_schema


def _finish(operation: dict[str, Any], path: str, method: str, policy: Policy) -> None:
    """Who may call, and every error."""
    operation["security"] = [{"token": []}] if policy.roles else []
    if policy.roles:
        roles = ", ".join(sorted(policy.roles))
        operation["description"] = f"{operation.get('description', '')}\n\nToken: {roles}.".strip()
    operation["responses"].pop("422", None)
    for status, kinds in _errors(path, method, policy).items():
        answer: dict[str, Any] = {
            "description": "; ".join(f"`{kind.name}`: {_meaning(kind, path)}" for kind in kinds),
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {kind.name: {"value": _example(kind)} for kind in kinds},
                }
            },
        }
        if status == 401:
            answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string", "enum": ["Bearer", INVALID_TOKEN]}}}
        if status == 416:
            answer["headers"] = {"Content-Range": {"schema": {"type": "string"}, "description": "`bytes */size`"}}
        if e.UploadOffset in kinds:
            answer["headers"] = {"Upload-Offset": {"schema": {"type": "string"}, "description": "where to go on"}}
        if status in (429, 503, 507):
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        operation["responses"][str(status)] = answer
    for name in ("learner_id", "task_id", "run_id", "digest"):
        if f"{{{name}}}" in path:
            described = [one for one in operation.setdefault("parameters", []) if one["name"] == name]
            if not described:
                schema = {"type": "string", "pattern": f"^{SEGMENTS.get(name, ID)}$"}
                operation["parameters"].append({"name": name, "in": "path", "required": True, "schema": schema})


def _example(kind: type[e.FederationError]) -> dict[str, Any]:
    return {
        "type": f"/errors/{kind.name}",
        "title": kind.title,
        "status": status_of(kind),
        "detail": "what was wrong, in words",
        "retryable": kind.retryable,
    }


def _meaning(kind: type[e.FederationError], path: str) -> str:
    """What an error says of a call, in words."""
    if kind is e.Forbidden:
        others = [why for part, why in FORBIDDEN.items() if part in path]
        return ", or ".join(["a role that may not do this", *others, "a web page of another origin"])
    return MEANINGS.get(kind, kind.title[0].lower() + kind.title[1:])


def _errors(path: str, method: str, policy: Policy) -> dict[int, list[type[e.FederationError]]]:
    specific = SPECIFIC.get(("GET" if method == "HEAD" and (method, path) not in SPECIFIC else method, path), [])
    kinds: list[type[e.FederationError]] = [one for one in specific if method != "HEAD" or one not in OF_BODIES]
    if "{" in path:
        kinds.append(e.NotFound)
    if policy.roles:
        kinds += [e.Unauthenticated, e.Forbidden]
    if policy.roles and method not in ("GET", "HEAD") and (method, path) not in FORGOTTEN:
        kinds += STORING
    kinds += [e.NotParseable, e.Forbidden, e.Misdirected, e.PreconditionFailed, e.TooLarge, e.UnsupportedMediaType]
    if policy.media:
        kinds.append(e.BodyTooSlow)
        if JSON[0] in policy.media:
            kinds.append(e.InvalidRequest)
    found: dict[int, list[type[e.FederationError]]] = {}
    for kind in kinds:
        same = found.setdefault(status_of(kind), [])
        if kind not in same:
            same.append(kind)
    return dict(sorted(found.items()))


CLOSED = [e.RoundClosed, e.TaskVoid]
UPDATE = [e.InvalidUpdate, e.MalformedUpdate, e.ShapeMismatch, e.NonFiniteUpdate, e.InvalidWeight]
STORING = [e.StoreUnavailable, e.DiskFull]
FORGOTTEN = {  # change nothing that outlives the process
    ("POST", "/v1/learners/{learner_id}/heartbeat"),
    ("DELETE", "/v1/tasks/{task_id}/result"),
}
OF_BODIES = {e.RangeNotSatisfiable}  # not of HEAD
FORBIDDEN = {
    "{learner_id}": "the path of another learner",
    "{task_id}": "the task of another learner",
    "{digest}": "no open task of this learner names the model",
}
MEANINGS: dict[type[e.FederationError], str] = {
    e.NotParseable: "the body is not JSON, a number or a header is none, there is not one Host",
    e.Misdirected: "without tokens: another name than localhost in Host",
    e.PreconditionFailed: "If-Match names another entity tag, or there is none here",
    e.NotFound: "the id in the path is none: it does not match the pattern",
    e.UnknownLearner: "it never was, or it left",
    e.UnknownTask: "it never was, or its run is forgotten",
    e.UnknownRun: "it never was, or it is forgotten; also current and latest when there is none",
    e.UnknownModel: "it is not held, or not any more; a run's: it has none yet, or none that was evaluated",
    e.Unauthenticated: "no token, or one that nobody has",
    e.TooLarge: "the body is longer than its limit, which limit tells (0 where none is taken)",
    e.RoundClosed: "the result came after its round closed",
    e.TaskVoid: "the run ended, or the task is not wanted for another reason",
    e.DifferentBody: "the same task or key was answered before with another body",
    e.InvalidUpdate: "a tensor lies absurdly far from the model's",
    e.InvalidWeight: "a number that the scaling factor or the rule reads is missing or out of range; key names it",
}
SPECIFIC: dict[tuple[str, str], list[type[e.FederationError]]] = {
    ("POST", "/v1/learners"): [e.NameTaken, e.FederationOver, e.Busy, e.Unavailable],
    ("GET", "/v1/learners/{learner_id}"): [e.UnknownLearner],
    ("POST", "/v1/learners/{learner_id}/readmit"): [e.UnknownLearner],
    ("GET", "/v1/learners/{learner_id}/task"): [e.NotParseable, e.UnknownLearner, e.FederationOver, *STORING],
    ("POST", "/v1/learners/{learner_id}/heartbeat"): [e.UnknownLearner, e.UnknownTask, *CLOSED],
    ("GET", "/v1/models/{digest}"): [e.UnknownModel, e.RangeNotSatisfiable, e.StoreUnavailable],
    ("PUT", "/v1/models/{digest}"): [e.DigestMismatch, e.MalformedUpdate, e.NonFiniteUpdate],
    ("PUT", "/v1/tasks/{task_id}/result"): [e.UnknownTask, e.DifferentBody, *CLOSED, *UPDATE],
    ("PUT", "/v1/tasks/{task_id}/scores"): [e.UnknownTask, e.DifferentBody, *CLOSED],
    ("HEAD", "/v1/tasks/{task_id}/result"): [e.UnknownTask, *CLOSED, *STORING],
    ("PATCH", "/v1/tasks/{task_id}/result"): [
        *(e.UnknownTask, e.UploadOffset, e.DifferentBody, e.InvalidRequest, *CLOSED, *UPDATE),
    ],
    ("DELETE", "/v1/tasks/{task_id}/result"): [e.UnknownTask, *CLOSED],
    ("POST", "/v1/tasks/{task_id}/failure"): [e.UnknownTask, *CLOSED],
    ("POST", "/v1/runs"): [e.InvalidConfig, e.UnknownModel, e.RunActive, e.DifferentBody, e.FederationOver],
    ("GET", "/v1/runs/{run_id}"): [e.UnknownRun],
    ("GET", "/v1/runs/{run_id}/rounds"): [e.UnknownRun],
    ("GET", "/v1/runs/{run_id}/results"): [e.UnknownRun],
    ("GET", "/v1/runs/{run_id}/model"): [
        *(e.UnknownRun, e.UnknownModel, e.InvalidRequest, e.RangeNotSatisfiable, e.StoreUnavailable),
    ],
    ("POST", "/v1/runs/{run_id}/stop"): [e.UnknownRun],
    ("POST", "/v1/runs/{run_id}/rounds"): [e.UnknownRun, e.NotManual, e.TaskVoid],
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/scores"): [e.UnknownRun, e.DifferentBody, e.TaskVoid],
    ("GET", "/v1/events"): [e.NotParseable],
}
