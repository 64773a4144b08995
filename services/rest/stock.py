"""httpx as a transport: through proxies, over TLS, into an app in this process."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence

import httpx

from ..errors import UnexpectedAnswer, Unreachable
from ..weights import Buffer, pieces
from .exchange import Answer, Request

PIECE = 1 << 20  # bytes in one write


class Stock:
    """Transport over httpx. `http` is its client, for what a Transport does not do (event streams)."""

    def __init__(self, verify: ssl.SSLContext | bool, transport: httpx.AsyncBaseTransport | None) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
        self.http = httpx.AsyncClient(verify=verify, transport=transport, limits=limits)

    async def send(self, request: Request) -> Answer:
        """See Transport.send."""
        headers = dict(request.headers)
        content: AsyncIterator[bytes] | bytes | None = None
        if request.parts:
            content = _body(request.parts)
            headers["Content-Length"] = str(request.length)
        try:
            async with self.http.stream(
                request.method, request.url, content=content, headers=headers, timeout=timeouts(request.limit_s)
            ) as response:
                body = await _read(response, request)
                named = {name.lower(): value for name, value in response.headers.items()}
                return Answer(request, response.status_code, named, body)
        except httpx.InvalidURL as error:
            raise UnexpectedAnswer(f"{request.url} is not a URL: {error}") from error
        except httpx.HTTPError as error:
            raise Unreachable(
                f"no answer from {request.url}: {error or type(error).__name__}", url=request.url
            ) from error

    async def close(self) -> None:
        """See Transport.close."""
        await self.http.aclose()


def timeouts(limit_s: float) -> httpx.Timeout:
    """At most `limit_s` seconds of silence, 10 for a connection."""
    return httpx.Timeout(limit_s, connect=10.0, pool=None)


async def _read(response: httpx.Response, request: Request) -> bytes:
    if request.into is None or response.status_code not in (200, 206):
        return await response.aread()
    declared = response.headers.get("Content-Length")
    request.into.begin(response.status_code, int(declared) if declared else None)
    before = request.into.have
    async for chunk in response.aiter_raw(PIECE):
        request.into.write(chunk)
    if declared and request.into.have - before != int(declared):
        raise Unreachable("the answer was cut", url=request.url)
    return b""


async def _body(parts: Sequence[Buffer]) -> AsyncIterator[bytes]:
    """The bytes of `parts` one after the other, in writes of `PIECE`: small parts travel together."""
    for piece in pieces(parts, PIECE):
        yield bytes(piece)
