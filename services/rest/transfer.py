"""Moving weights documents with httpx: uploads from the arrays' own memory, downloads that resume by Range."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import httpx

from ..errors import DigestMismatch, UnexpectedAnswer
from ..wire import Buffer, digest

PIECE = 1 << 20  # bytes in one write
INLINE_HASH = 1 << 20  # bytes hashed on the event loop; more goes to a thread


async def pieces(parts: Sequence[Buffer]) -> AsyncIterator[bytes]:
    """The bytes of `parts` one after the other, in writes of about `PIECE`: small parts travel together."""
    together = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        for at in range(0, len(view), PIECE):
            together += view[at : at + PIECE]
            if len(together) >= PIECE:
                yield bytes(together)
                together.clear()
    if together:
        yield bytes(together)


def length(parts: Sequence[Buffer]) -> int:
    """Bytes in all of `parts`."""
    return sum(memoryview(part).nbytes for part in parts)


async def digest_of(parts: Sequence[Buffer]) -> str:
    """`sha256-…` of the bytes of `parts`; a long hash leaves the event loop free."""
    if length(parts) <= INLINE_HASH:
        return digest(parts)
    return await asyncio.to_thread(digest, parts)


async def checked(body: bytearray, expected: str) -> bytearray:
    """`body` if its digest is `expected`; raises DigestMismatch."""
    got = await digest_of([body])
    if got != expected:
        raise DigestMismatch("the downloaded bytes are not those that were asked for", expected=expected, got=got)
    return body


class Download:
    """A body that grows over several connections: each attempt asks only for what is missing."""

    def __init__(self) -> None:
        self.body = bytearray()

    @property
    def headers(self) -> dict[str, str]:
        """Request headers of the next attempt."""
        return {"Range": f"bytes={len(self.body)}-"} if self.body else {}

    async def read(self, response: httpx.Response) -> None:
        """Append the response's body; what arrived before a cut is kept."""
        if response.status_code != 206:
            self.body.clear()
        expected = int(response.headers.get("Content-Length", -1))
        before = len(self.body)
        async for chunk in response.aiter_raw(PIECE):
            self.body += chunk
        if 0 <= expected != len(self.body) - before:
            raise UnexpectedAnswer("the body ended early", expected=expected, got=len(self.body) - before)
