"""Errors as problem documents (RFC 9457): one table from class to status, one place where they are written."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from services import errors as e
from services.config import MAX_EXPLAINED, explain
from services.failures import of_error

MEDIA_TYPE = "application/problem+json"
Endpoint = Callable[[Request], Awaitable[Response]]
log = structlog.get_logger("controller")

STATUS: dict[type[e.FederationError], int] = {
    e.NotParseable: 400,
    e.Unauthenticated: 401,
    e.Forbidden: 403,
    e.NotFound: 404,
    e.MethodNotAllowed: 405,
    e.BodyTooSlow: 408,
    e.HeadTooSlow: 408,
    e.Conflict: 409,
    e.Gone: 410,
    e.PreconditionFailed: 412,
    e.TooLarge: 413,
    e.UnsupportedMediaType: 415,
    e.RangeNotSatisfiable: 416,
    e.Misdirected: 421,
    e.HeadTooLarge: 431,
    e.InvalidRequest: 422,
    e.InvalidUpdate: 422,
    e.Busy: 429,
    e.Unavailable: 503,
    e.DiskFull: 507,
    e.FederationError: 500,
}
RETRY_AFTER_S = 5


def status_of(kind: type[e.FederationError]) -> int:
    """The status of an error class: its own, or that of the nearest class above it."""
    return next(STATUS[above] for above in kind.__mro__ if above in STATUS)


def body_of(error: e.FederationError) -> dict[str, Any]:
    """The members of an error's problem document."""
    return {
        "type": f"/errors/{error.name}",
        "title": error.title,
        "status": status_of(type(error)),
        "detail": error.detail,
        "retryable": error.retryable,
        **{key: _plain(value) for key, value in error.values.items() if key not in ("allow", "headers")},
    }


def problem(error: e.FederationError, close: bool = False) -> Response:
    """The problem document of an error. `close` ends the connection, for a body that was not read."""
    status = status_of(type(error))
    headers = dict(error.values.get("headers", {}))
    if status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    if "allow" in error.values:
        headers["Allow"] = error.values["allow"]
    if error.retryable and status in (429, 503, 507):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if close or status in (408, 413):  # the rest of the body is not waited for
        headers["Connection"] = "close"
    return Response(json.dumps(body_of(error), allow_nan=False), status, headers, MEDIA_TYPE)


def _plain(value: Any) -> Any:
    """`value` as JSON can carry it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def from_validation(error: ValidationError) -> e.FederationError:
    """What pydantic says of a body, as an error of the federation."""
    for item in error.errors(include_url=False, include_context=False):
        if item["type"] == "json_invalid":
            return e.NotParseable(f"the body is not JSON: {item['msg'].removeprefix('Invalid JSON: ')}")
    wrong = explain(error)
    return e.InvalidRequest("; ".join(wrong), errors=wrong)


async def answered(endpoint: Endpoint, request: Request) -> Response:
    """What an endpoint answers, or the problem document of what it raised."""
    try:
        return await endpoint(request)
    except e.FederationError as error:
        return problem(error)
    except (ClientDisconnect, ConnectionResetError) as error:
        return await on_hang_up(request, error)
    except Exception as error:
        log.error("an endpoint failed", path=request.scope["path"], exception=of_error(error).traceback)
        return await on_bug(request, error)


# ---- handlers, for what comes out of the routes
async def on_federation_error(request: Request, error: Exception) -> Response:
    """Errors of the federation."""
    assert isinstance(error, e.FederationError)
    return problem(error)


async def on_validation_error(request: Request, error: Exception) -> Response:
    """FastAPI's own reading of bodies and parameters."""
    assert isinstance(error, RequestValidationError)
    items = error.errors()
    for item in items:
        if item["type"] == "json_invalid":
            return problem(e.NotParseable(f"the body is not JSON: {item['ctx']['error']}, at {item['loc'][-1]}"))
    wrong = [
        f"{'.'.join(str(part) for part in item['loc'] if part != 'body') or 'body'}: {item['msg']}"
        for item in items[:MAX_EXPLAINED]
    ]
    return problem(e.InvalidRequest("; ".join(wrong), errors=wrong))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What the frameworks raise: a body that could not be read has the real error as its cause."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, e.FederationError):
        return problem(error.__cause__)
    if error.status_code == 404:
        return problem(e.NotFound("there is no such path; see /docs"))
    if error.status_code == 405:
        return problem(e.MethodNotAllowed("this path does not take that method", headers=dict(error.headers or {})))
    why = str(error.__cause__ or error.detail).partition(";")[0]
    return problem(e.NotParseable(f"the body cannot be read as JSON: {why}"))


async def on_hang_up(request: Request, error: Exception) -> Response:
    """The caller went away before its body was here: nobody hears this, but it is counted."""
    return problem(e.BodyTooSlow("the connection ended before the body did"))


async def on_bug(request: Request, error: Exception) -> Response:
    """Whatever nobody expected: says nothing of its inside; the log has the traceback."""
    return problem(e.FederationError("an error of the controller itself; its log has the details"))
