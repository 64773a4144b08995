"""Tasks and their results: the poll, the heartbeat, the result, resumed after a cut, and the failure.

HEAD, PATCH and DELETE of a result are for uploads that go on where they were cut (draft-ietf-httpbis-resumable-upload).
Plain routes, described in openapi.py: every round takes them.
"""

from __future__ import annotations

import asyncio
import math

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services import messages as m
from services.errors import NotParseable, TooLarge

from ...headers import number_in
from ...problems import from_validation
from ...runtime import intake
from ...transport import incoming_of
from .request import caller, json_response, runtime_of

MAX_WAIT_S = 60.0
NOTHING = Response(status_code=204)
COMPLETE, PARTIAL = "?1", "?0"  # structured booleans (RFC 9651)


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


async def put_result(request: Request) -> Response:
    """PUT /v1/tasks/{task_id}/result for weights, …/scores for scores; scores are taken at the first, too, as of old"""
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
    await runtime.fail_task(task_id, learner, failure.error, failure.traceback)
    return Response(status_code=204)


async def offset(request: Request) -> Response:
    """HEAD: how much of the result is here."""
    runtime, task_id = runtime_of(request), request.path_params["task_id"]
    task = runtime.check_task(task_id, caller(request).learner)
    headers = {"Cache-Control": "no-store", "Upload-Limit": f"max-size={runtime.settings.max_model_bytes}"}
    await runtime.uploads.settle(task_id)
    upload = runtime.uploads.find(task_id)
    if task.outcome is not None:
        await runtime.kept()
        headers |= _headers(task.outcome.size, COMPLETE, task.outcome.size)
    elif upload is not None:
        headers |= _headers(upload.have, PARTIAL, len(upload.buffer))
    else:
        headers |= _headers(0, PARTIAL, None)
    return Response(status_code=204, headers=headers)


async def append(request: Request) -> Response:
    """PATCH: the next part of the result; with `Upload-Complete: ?1` the last one."""
    runtime, task_id = runtime_of(request), request.path_params["task_id"]
    task = runtime.check_task(task_id, caller(request).learner)
    start, last, count = _number(request, "upload-offset"), _is_last(request), _number(request, "content-length", 0)
    async with runtime.uploads.turn(task_id, incoming_of(request)):
        if task.outcome is not None and start == task.outcome.size and count == 0:
            await runtime.kept()
            return json_response(task.receipt, 200)
        if start == 0 and runtime.uploads.find(task_id) is None:
            length = count if last else _number(request, "upload-length")
            _check_length(intake.most_bytes(runtime, task), length)
            runtime.uploads.begin(task_id, task.learner_id, length)
        upload = runtime.uploads.resume(task_id, start)
        size = len(upload.buffer)
        if start + count > size or (last and start + count != size):
            raise TooLarge(f"the upload was said to have {size} bytes", expected=size, got=start + count)
        async with runtime.slots.slot(task.learner_id, incoming_of(request)):
            await upload.fill(request, count)
            if not last:
                return Response(status_code=204, headers=_headers(upload.have, PARTIAL, size))
            with runtime.uploads.whole(task_id, upload) as body:  # taken or refused: what comes next begins anew
                receipt, taken = await intake.take_body(runtime, task, body)
    return json_response(receipt, 201 if taken else 200, _headers(upload.have, COMPLETE, upload.have))


async def cancel(request: Request) -> Response:
    """DELETE: forget what came; the task is as before."""
    runtime, task_id = runtime_of(request), request.path_params["task_id"]
    runtime.check_task(task_id, caller(request).learner)
    runtime.uploads.end(task_id)
    return Response(status_code=204)


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
        raise NotParseable(f"wait is a number of seconds, not {_short(text)!r}", got=_short(text))
    return min(max(seconds, 0.0), MAX_WAIT_S)


async def _hung_up(request: Request) -> None:
    """Returns when the caller is no longer there."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _headers(have: int, complete: str, length: int | None) -> dict[str, str]:
    headers = {"Upload-Offset": str(have), "Upload-Complete": complete}
    return headers if length is None else {**headers, "Upload-Length": str(length)}


def _number(request: Request, name: str, default: int | None = None) -> int:
    text = request.headers.get(name)
    if text is None and default is not None:
        return default
    number = None if text is None else number_in(text)
    if number is None:
        raise NotParseable(f"{name} is a number of bytes, not {_short(text)!r}", got=_short(text))
    return number


def _is_last(request: Request) -> bool:
    text = request.headers.get("upload-complete")
    if text not in (COMPLETE, PARTIAL):
        raise NotParseable(f"Upload-Complete is ?1 or ?0, not {_short(text)!r}", got=_short(text))
    return text == COMPLETE


def _short(text: str | None) -> str | None:
    return None if text is None else text[:40]


def _check_length(limit: int, length: int) -> None:
    if length > limit:
        raise TooLarge(f"the upload has {length} bytes, the limit is {limit}{intake.MOST}", limit=limit, got=length)


ROUTES = [
    Route("/v1/learners/{learner_id}/task", task, methods=["GET"]),
    Route("/v1/learners/{learner_id}/heartbeat", heartbeat, methods=["POST"]),
    Route("/v1/tasks/{task_id}/result", put_result, methods=["PUT"]),
    Route("/v1/tasks/{task_id}/result", offset, methods=["HEAD"]),
    Route("/v1/tasks/{task_id}/result", append, methods=["PATCH"]),
    Route("/v1/tasks/{task_id}/result", cancel, methods=["DELETE"]),
    Route("/v1/tasks/{task_id}/scores", put_result, methods=["PUT"]),
    Route("/v1/tasks/{task_id}/failure", post_failure, methods=["POST"]),
]
