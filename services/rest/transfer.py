"""Digests of what is moved, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..errors import DigestMismatch
from ..wire import Buffer, digest

INLINE_HASH = 1 << 20  # bytes hashed on the event loop; more goes to a thread


async def digest_of(parts: Sequence[Buffer]) -> str:
    """`sha256-…` of the bytes of `parts`; a long hash leaves the event loop free."""
    if sum(memoryview(part).nbytes for part in parts) <= INLINE_HASH:
        return digest(parts)
    return await asyncio.to_thread(digest, parts)


async def check_digest(body: Buffer, expected: str) -> None:
    """Raise DigestMismatch when the body's digest is another."""
    got = await digest_of([body])
    if got != expected:
        raise DigestMismatch("the downloaded bytes are not those that were asked for", expected=expected, got=got)
