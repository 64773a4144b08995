"""Reading a request's body into memory that is there already, by the socket itself where the connection allows it."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from services.errors import TooLarge

INLINE = 1 << 18  # bytes: to deal with a smaller body takes the event loop no time that others would notice
GATHERED = 1 << 14  # bytes: a smaller body is not worth the machinery


async def receive(request: Request, buffer: memoryview, interrupt: asyncio.Future[None]) -> int:
    """Fill `buffer`; the number of bytes that came: fewer when the peer left or `interrupt` was done.

    Raises BodyTooSlow (`got`: the bytes that came), TooLarge.
    """
    receive_into = request.scope.get("extensions", {}).get("metis.receive_into")
    if receive_into is None or len(buffer) <= GATHERED:
        return await _gather(request, buffer, interrupt)
    came: int = await receive_into(buffer, interrupt)
    return came


async def collect(request: Request) -> memoryview:
    """A body whose length nobody said. Raises ClientDisconnect."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
    return memoryview(body)


async def _gather(request: Request, buffer: memoryview, interrupt: asyncio.Future[None]) -> int:
    """The same in the pieces in which the stock server gives them."""
    came = 0
    try:
        async for chunk in request.stream():
            if came + len(chunk) > len(buffer):
                raise TooLarge("the body is longer than it was declared", expected=len(buffer))
            buffer[came : came + len(chunk)] = chunk
            came += len(chunk)
            if interrupt.done():
                break
    except ClientDisconnect:
        pass
    return came
