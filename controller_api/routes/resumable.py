"""HEAD, PATCH and DELETE of a result: an upload that was cut goes on where it ended (see uploads.py)."""

from __future__ import annotations

import re

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from services.errors import NotParseable, TooLarge

from .. import intake
from ..runtime import Runtime
from .hot import caller, json_response, runtime_of

COMPLETE, PARTIAL = "?1", "?0"  # structured booleans (RFC 9651)


async def offset(request: Request) -> Response:
    """HEAD: how much of the result is here."""
    runtime, task_id = runtime_of(request), request.path_params["task_id"]
    task = runtime.check_task(task_id, caller(request).learner)
    upload = runtime.uploads.find(task_id)
    headers = {"Cache-Control": "no-store", "Upload-Limit": f"max-size={runtime.settings.max_model_bytes}"}
    if upload is not None:
        await upload.take_over()
    if task.outcome is not None:
        await runtime.kept()
        headers |= _headers(task.outcome.size, COMPLETE, task.outcome.size)
    elif upload is not None and not upload.over:
        headers |= _headers(upload.have, PARTIAL, len(upload.buffer))
    else:
        headers |= _headers(0, PARTIAL, None)
    return Response(status_code=204, headers=headers)


async def append(request: Request) -> Response:
    """PATCH: the next part of the result; with `Upload-Complete: ?1` the last one."""
    runtime, task_id = runtime_of(request), request.path_params["task_id"]
    task = runtime.check_task(task_id, caller(request).learner)
    start, last, count = _number(request, "upload-offset"), _is_last(request), _number(request, "content-length", 0)
    if task.outcome is not None and start == task.outcome.size and count == 0:
        await runtime.kept()
        return json_response(task.receipt, 200)
    if start == 0 and runtime.uploads.find(task_id) is None:
        length = count if last else _number(request, "upload-length")
        _check_length(runtime, length)
        runtime.uploads.begin(task_id, length)
    upload = await runtime.uploads.resume(task_id, start)
    if start + count > len(upload.buffer) or (last and start + count != len(upload.buffer)):
        raise TooLarge(
            f"the upload was said to have {len(upload.buffer)} bytes", expected=len(upload.buffer), got=start + count
        )
    async with runtime.slots:
        if not await upload.fill(request, start, count):
            raise ClientDisconnect
        if not last:
            return Response(status_code=204, headers=_headers(upload.have, PARTIAL, len(upload.buffer)))
        with runtime.uploads.whole(task_id, upload) as body:  # taken or refused: what comes next begins anew
            receipt, taken = await intake.take_body(runtime, task, body)
    return json_response(receipt, 201 if taken else 200, _headers(upload.have, COMPLETE, upload.have))


async def cancel(request: Request) -> Response:
    """DELETE: forget what came; the task is as before."""
    runtime, task_id = runtime_of(request), request.path_params["task_id"]
    runtime.check_task(task_id, caller(request).learner)
    runtime.uploads.end(task_id)
    return Response(status_code=204)


def _headers(have: int, complete: str, length: int | None) -> dict[str, str]:
    headers = {"Upload-Offset": str(have), "Upload-Complete": complete}
    return headers if length is None else {**headers, "Upload-Length": str(length)}


def _number(request: Request, name: str, default: int | None = None) -> int:
    text = request.headers.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch("[0-9]{1,18}", text):
        raise NotParseable(f"{name} is a number of bytes, not {text!r}", got=text)
    return int(text)


def _is_last(request: Request) -> bool:
    text = request.headers.get("upload-complete")
    if text not in (COMPLETE, PARTIAL):
        raise NotParseable(f"Upload-Complete is ?1 or ?0, not {text!r}", got=text)
    return text == COMPLETE


def _check_length(runtime: Runtime, length: int) -> None:
    limit = runtime.settings.max_model_bytes
    if length > limit:
        raise TooLarge(f"the upload has {length} bytes, the limit is {limit}", limit=limit, got=length)


ROUTES = [
    Route("/v1/tasks/{task_id}/result", offset, methods=["HEAD"]),
    Route("/v1/tasks/{task_id}/result", append, methods=["PATCH"]),
    Route("/v1/tasks/{task_id}/result", cancel, methods=["DELETE"]),
]
