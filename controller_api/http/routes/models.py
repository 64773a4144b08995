"""GET, HEAD and PUT of models: strong ETag, conditional and range requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services import messages as m
from services.errors import Forbidden, PreconditionFailed, RangeNotSatisfiable, UnknownModel

from ...headers import byte_range, names_tag
from ...runtime import Runtime, intake
from ...transport import WeightsResponse
from .request import caller, json_response, runtime_of


async def get_model(request: Request) -> Response:
    """GET, HEAD /v1/models/{digest}"""
    runtime, identity, digest = runtime_of(request), caller(request), request.path_params["digest"]
    if identity.learner is not None and runtime.federation.offers.naming(identity.learner, digest) is None:
        raise Forbidden("no open task of this learner names that model")
    sharing = "public" if runtime.settings.cacheable_models else "private"
    response = await model_response(request, runtime, digest, f"{sharing}, max-age=31536000, immutable")
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


async def model_response(request: Request, runtime: Runtime, digest: str, cache_control: str) -> Response:
    """200, 206 or 304 for GET and HEAD; several ranges get the whole. Raises PreconditionFailed, RangeNotSatisfiable,
    UnknownModel."""
    info, _ = runtime.model(digest)
    etag = f'"{digest}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": cache_control,
        "X-Content-Type-Options": "nosniff",
    }
    if not names_tag(request.headers.get("if-match", "*"), etag, strong=True):
        raise PreconditionFailed(f"the model here is {digest}, which If-Match does not name", got=digest)
    if names_tag(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    wanted = _range(request, info.size, etag)
    first, last = wanted or (0, info.size - 1)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{info.size}"
    document = await runtime.document(digest)
    status, count = 200 if wanted is None else 206, last - first + 1
    return WeightsResponse(status, headers, document, first, count, lambda: runtime.store.file(digest))


def _range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """First and last byte that are wanted, or None for all."""
    asked = byte_range(request.headers.get("range", "")) if request.method == "GET" else None
    if asked is None or request.headers.get("if-range", etag) != etag:
        return None
    begin, end = asked
    if begin is None:  # the last bytes
        count = end or 0
        first, last = max(0, size - count), size - 1
        satisfiable = count > 0 and size > 0
    else:
        first, last = begin, size - 1 if end is None else min(end, size - 1)
        if end is not None and end < begin:
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
