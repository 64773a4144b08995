"""What the routes ask of a request: the runtime behind it, its caller, and an answer in JSON."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ...runtime import Runtime
from ...tokens import Identity


def runtime_of(request: Request) -> Runtime:
    """The controller's runtime."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def written_runtime(request: Request) -> Runtime:
    """The same, once what it would show outlives the process."""
    runtime = runtime_of(request)
    await runtime.written()
    return runtime


def caller(request: Request) -> Identity:
    """Who the gate let in."""
    identity: Identity = request.scope["state"]["identity"]
    return identity


def json_response(message: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A message as an answer."""
    return Response(message.model_dump_json(), status, headers, "application/json")
