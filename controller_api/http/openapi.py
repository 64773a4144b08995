"""The OpenAPI document: FastAPI's own, with the plain routes described by hand, every error, and who may call.

A stranger should be able to write a learner from it alone: a test does.
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
from .gate import ID, JSON, POLICIES, SEGMENTS, Policy
from .guide import introduction
from .operations import PLAIN

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
            description=introduction(),
            routes=app.routes,
            servers=[{"url": "./", "description": "this controller, below whatever prefix a proxy gives it"}],
            tags=[{"name": name} for name in ("learners", "tasks", "models", "runs", "federation")],
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
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in copy.deepcopy(PLAIN).items():
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
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {kind.name: {"value": _example(kind)} for kind in kinds},
                }
            },
        }
        if status == 401:
            answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string", "enum": ["Bearer"]}}}
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
    ("POST", "/v1/learners"): [e.NameTaken, e.FederationOver, e.Busy, e.Unavailable],
    ("GET", "/v1/learners/{learner_id}"): [e.UnknownLearner],
    ("GET", "/v1/learners/{learner_id}/task"): [e.NotParseable, e.UnknownLearner, e.FederationOver],
    ("POST", "/v1/learners/{learner_id}/heartbeat"): [e.UnknownLearner, e.UnknownTask, *CLOSED],
    ("GET", "/v1/models/{digest}"): [e.UnknownModel, e.RangeNotSatisfiable, e.StoreUnavailable],
    ("PUT", "/v1/models/{digest}"): [e.DigestMismatch, e.MalformedUpdate, e.NonFiniteUpdate, *STORING],
    ("PUT", "/v1/tasks/{task_id}/result"): [e.UnknownTask, e.DifferentBody, *CLOSED, *UPDATE, *STORING],
    ("HEAD", "/v1/tasks/{task_id}/result"): [e.UnknownTask, *CLOSED],
    ("PATCH", "/v1/tasks/{task_id}/result"): [
        *(e.UnknownTask, e.UploadOffset, e.DifferentBody, e.InvalidRequest, *CLOSED, *UPDATE, *STORING),
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
    ("GET", "/v1/events"): [e.NotParseable],
}
