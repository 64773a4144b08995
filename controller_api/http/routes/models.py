"""GET, HEAD and PUT of models: strong ETag, conditional and range requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services import messages as m
from services.errors import Forbidden, RangeNotSatisfiable, UnknownModel

from ...runtime import Runtime, intake
from ...transport import WeightsResponse
from .request import caller, json_response, runtime_of

RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


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


async def model_response(request: Request, runtime: Runtime, digest: str, shared_caches: bool = False) -> Response:
    """200, 206 or 304 for GET and HEAD; raises RangeNotSatisfiable, UnknownModel. Several ranges get the whole."""
    info, _ = runtime.model(digest)
    etag = f'"{digest}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"{'public' if shared_caches else 'private'}, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted = _range(request, info.size, etag)
    first, last = wanted or (0, info.size - 1)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{info.size}"
    document = await runtime.document(digest)
    status, count = 200 if wanted is None else 206, last - first + 1
    return WeightsResponse(status, headers, document, first, count, lambda: runtime.store.file(digest))


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    return header.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in header.split(",")]


def _range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """First and last byte that are wanted, or None for all; what is no single range is ignored (RFC 9110, 14.2)."""
    match = RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or request.headers.get("if-range", etag) != etag or request.method != "GET":
        return None
    first_text, last_text = match.groups()
    if not first_text and not last_text:
        return None
    if not first_text:  # the last n bytes
        first, last = max(0, size - int(last_text)), size - 1
        satisfiable = int(last_text) > 0 and size > 0
    else:
        first, last = int(first_text), min(int(last_text or size - 1), size - 1)
        if last_text and int(last_text) < first:
            return None
        satisfiable = first < size
    if not satisfiable:
        raise RangeNotSatisfiable(
            f"the document has {size} bytes", limit=size, headers={"Content-Range": f"bytes */{size}"}
        )
    return first, last


ROUTES = [
    Route("/v1/models/{digest}", get_model, methods=["GET", "HEAD"]),
    Route("/v1/models/{digest}", put_model, methods=["PUT"]),
]
