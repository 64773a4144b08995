"""The rest of a body whose request was answered before it had come: read and dropped before the answer ends, so that
its sender gets to read the answer. To close on bytes that are still on their way resets the connection, and what was
answered is lost with it (RFC 9112, section 9.6)."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Send

from ..headers import number_in
from .incoming import Incoming

LINGER_S = 10.0  # for so long it is dropped,
LINGER_BYTES = 64 << 20  # and no more than so much
CLOSE = (b"connection", b"close")


class Rest:
    """`send` of one request with a body. `body` is as it was let in; None when it was refused unread."""

    def __init__(self, headers: Headers, body: Incoming | None, receive: Receive, send: Send) -> None:
        self._headers = headers
        self._body = body
        self._receive = receive
        self._send = send

    async def send(self, message: Message) -> None:
        """An answer's last byte goes out at once, its end when nothing more comes."""
        if self._has_come():
            await self._send(message)
        elif message["type"] == "http.response.start" and self._is_awaited():
            headers = [pair for pair in message.get("headers", []) if pair[0] != CLOSE[0]]
            await self._send({**message, "headers": [*headers, CLOSE]})
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            if not self._is_awaited():
                await self._drop()
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await self._send(message)

    def _has_come(self) -> bool:
        return self._body is not None and self._body.is_whole

    def _is_awaited(self) -> bool:
        """Whether its sender waits to be told that it is wanted (RFC 9110, section 10.1.1)."""
        came = 0 if self._body is None else self._body.came
        return came == 0 and self._headers.get("expect", "").lower() == "100-continue"

    async def _drop(self) -> None:
        if self._body is not None:
            self._body.end()  # its pace is nobody's business any more
        came = 0 if self._body is None else self._body.came
        declared = number_in(self._headers.get("content-length", ""))
        left = LINGER_BYTES if declared is None else min(declared - came, LINGER_BYTES)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
