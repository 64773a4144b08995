"""The paths that every round takes: task, heartbeat, model, result, failure. Plain routes, described in openapi.py."""

from __future__ import annotations

import asyncio
import math

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services import messages as m
from services.errors import Forbidden, NotParseable, UnknownModel

from .. import intake
from ..problems import from_validation
from ..runtime import Runtime
from ..tokens import Identity
from ..weights_response import WeightsResponse
from .ranges import model_response

MAX_WAIT_S = 60.0
NOTHING = Response(status_code=204)


def runtime_of(request: Request) -> Runtime:
    """The controller's runtime."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def settled(request: Request) -> Runtime:
    """The same, once what it would show outlives the process."""
    runtime = runtime_of(request)
    await runtime.settled()
    return runtime


def caller(request: Request) -> Identity:
    """Who the gate let in."""
    identity: Identity = request.scope["state"]["identity"]
    return identity


async def task(request: Request) -> Response:
    """GET /v1/learners/{learner_id}/task?wait="""
    wait_s = _wait(request)

    def watched() -> asyncio.Future[None]:
        return asyncio.ensure_future(_hung_up(request))

    gone = request.scope.get("extensions", {}).get("metis.gone", watched)
    found = await runtime_of(request).next_task(request.path_params["learner_id"], wait_s, gone)
    return NOTHING if found is None else json_response(found)


async def heartbeat(request: Request) -> Response:
    """POST /v1/learners/{learner_id}/heartbeat"""
    body = await request.body()
    try:
        beat = m.Heartbeat.model_validate_json(body) if body else m.Heartbeat()
    except ValidationError as error:
        raise from_validation(error) from error
    runtime_of(request).heartbeat(request.path_params["learner_id"], beat)
    return Response(status_code=204)


async def get_model(request: Request) -> Response:
    """GET, HEAD /v1/models/{digest}"""
    runtime, identity, digest = runtime_of(request), caller(request), request.path_params["digest"]
    if identity.learner is not None and runtime.federation.offers.naming(identity.learner, digest) is None:
        raise Forbidden("no open task of this learner names that model")
    response = await model_response(request, runtime, digest, runtime.settings.cacheable_models)
    if request.method == "GET" and isinstance(response, WeightsResponse):
        runtime.note_download(identity.learner, runtime.model(digest)[0], response.count)
    return response


async def put_model(request: Request) -> Response:
    """PUT /v1/models/{digest}"""
    runtime, digest = runtime_of(request), request.path_params["digest"]
    try:
        info, _ = runtime.model(digest)
        await runtime.document(digest)
        await runtime.kept()
        created = False
    except UnknownModel:
        await intake.take_model(runtime, request, digest)
        info, _ = runtime.model(digest)
        created = True
    reference = m.Reference(digest=digest, url=digest, size=info.size)
    return json_response(reference, 201 if created else 200, {"Location": digest})


async def put_result(request: Request) -> Response:
    """PUT /v1/tasks/{task_id}/result"""
    runtime, task_id, learner = runtime_of(request), request.path_params["task_id"], caller(request).learner
    intake.check_media(runtime.federation.offers.get(task_id, learner), request)
    assigned = runtime.check_task(task_id, learner)
    receipt, taken = await intake.take_result(runtime, request, assigned)
    return json_response(receipt, 201 if taken else 200)


async def post_failure(request: Request) -> Response:
    """POST /v1/tasks/{task_id}/failure"""
    runtime, task_id, learner = runtime_of(request), request.path_params["task_id"], caller(request).learner
    runtime.federation.offers.get(task_id, learner)
    try:
        failure = m.Failure.model_validate_json(await request.body())
    except ValidationError as error:
        raise from_validation(error) from error
    await runtime.fail_task(task_id, learner, failure.error)
    return Response(status_code=204)


def json_response(message: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A message as an answer."""
    return Response(message.model_dump_json(), status, headers, "application/json")


def _wait(request: Request) -> float:
    query: bytes = request.scope["query_string"]
    if query.startswith(b"wait=") and query[5:].isdigit():  # as usual: a poll that waits need not hold more
        text = query[5:].decode()
    else:
        text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise NotParseable(f"wait is a number of seconds, not {text[:40]!r}", got=text[:40])
    return min(max(seconds, 0.0), MAX_WAIT_S)


async def _hung_up(request: Request) -> None:
    """Returns when the caller is no longer there."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


ROUTES = [
    Route("/v1/learners/{learner_id}/task", task, methods=["GET"]),
    Route("/v1/learners/{learner_id}/heartbeat", heartbeat, methods=["POST"]),
    Route("/v1/models/{digest}", get_model, methods=["GET", "HEAD"]),
    Route("/v1/models/{digest}", put_model, methods=["PUT"]),
    Route("/v1/tasks/{task_id}/result", put_result, methods=["PUT"]),
    Route("/v1/tasks/{task_id}/failure", post_failure, methods=["POST"]),
]
