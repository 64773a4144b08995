"""Reading a request's body into memory that is there already, by the socket itself where the connection allows it."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from services.errors import TooLarge

from .incoming import incoming_of

INLINE = 1 << 18  # bytes: to deal with a smaller body takes the event loop no time that others would notice
GATHERED = 1 << 14  # bytes: a smaller body is not worth the machinery


async def receive(request: Request, buffer: memoryview) -> None:
    """Fill `buffer`; whatever is raised, `incoming_of(request).came` tells how many bytes are in it.

    Raises ClientDisconnect when the peer left, BodyTooSlow when the body was stopped, TooLarge.
    """
    body = incoming_of(request)
    receive_into = request.scope.get("extensions", {}).get("metis.receive_into")
    try:
        if receive_into is None or len(buffer) <= GATHERED:
            await _gather(request, buffer)
        else:
            body.begin()
            await receive_into(buffer, body)
    finally:
        body.end()
    if body.came < len(buffer):
        raise ClientDisconnect


async def collect(request: Request) -> memoryview:
    """A body whose length nobody said. Raises ClientDisconnect, BodyTooSlow, TooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
    return memoryview(body)


async def _gather(request: Request, buffer: memoryview) -> None:
    """The same in the pieces in which the stock server gives them."""
    came = 0
    async for chunk in request.stream():
        if came + len(chunk) > len(buffer):
            raise TooLarge("the body is longer than it was declared", expected=len(buffer))
        buffer[came : came + len(chunk)] = chunk
        came += len(chunk)
