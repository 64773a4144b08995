"""What a connection's bytes are read by: heads and small bodies in small pieces, a large body by a sink of its own.

Both are asyncio.BufferedProtocol: the socket writes into memory that they give.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..clock import Clock
from ..futures import complete
from .incoming import Incoming

HEAD_PIECE = 1 << 13  # bytes in one system call while a head is read
PIECE = 1 << 20  # bytes in one system call: larger gains nothing
TURN = 1 << 21  # bytes after which others get their turn: uvloop goes on reading for as long as it gets whole pieces
STALL_S = 30.0  # an answer that moves less than SLOWEST · STALL_S in this time is given up
SLOWEST = 1024  # bytes per second


class Reader(asyncio.BufferedProtocol):
    """Reads heads and small bodies in small pieces: a large body is still in the socket when its head is understood."""

    __slots__ = ("_buffer", "_http")
    _of_thread = threading.local()  # all connections of an event loop read into one buffer, which is emptied at once

    def __init__(self, http: HttpToolsProtocol) -> None:
        self._http = http
        if not hasattr(self._of_thread, "buffer"):
            self._of_thread.buffer = memoryview(bytearray(HEAD_PIECE))
        self._buffer: memoryview = self._of_thread.buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        self._http.data_received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> None:
        """See asyncio.BaseProtocol."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._http.connection_lost(exc)


class Sink(asyncio.BufferedProtocol):
    """Has the connection for the length of one body: the socket writes into `buffer`, nothing else does."""

    def __init__(
        self, http: HttpToolsProtocol, reader: asyncio.BaseProtocol, buffer: memoryview, body: Incoming
    ) -> None:
        """`reader` gets the connection back; what came of `body` is in `buffer` already."""
        self.done: asyncio.Future[None] = http.loop.create_future()
        self._body = body
        self._http = http
        self._reader = reader
        self._buffer = buffer
        self._size = len(buffer)
        self._in_turn = 0  # bytes
        self._attached = True

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        came = self._body.came
        return self._buffer[came : came + PIECE]

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        self._body.came += nbytes
        if self._body.came == self._size:
            self._hand_back()
            complete(self.done)
            return
        self._in_turn += nbytes
        if self._in_turn >= TURN:
            self._in_turn = 0
            self._http.flow.pause_reading()
            self._http.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._attached:
            self._http.flow.resume_reading()

    def detach(self) -> None:
        """Whatever ended the wait: not a byte more goes into the buffer. An unfinished body ends its connection."""
        if self._attached:
            self._hand_back()
            self._http.cycle.keep_alive = False

    def _hand_back(self) -> None:
        self._let_go()
        self._http.flow.pause_reading()  # until the next request is wanted
        self._http.transport.set_protocol(self._reader)

    def _let_go(self) -> None:
        """The transport keeps this protocol's methods for as long as it lives: they must not keep the buffer."""
        self._attached = False
        self._buffer = memoryview(b"")

    def eof_received(self) -> None:
        """See asyncio.BaseProtocol."""

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._let_go()
        complete(self.done)
        self._http.connection_lost(exc)


class Watch:
    """Calls `give_up` when less than SLOWEST bytes per second moved over STALL_S seconds."""

    def __init__(self, clock: Clock, position: Any, give_up: Any, over: Any = lambda: False) -> None:
        """It ends by itself when `over` says so."""
        self._clock = clock
        self._over = over
        self._position = position
        self._give_up = give_up
        self._seen = position()
        self._timer = clock.call_later(STALL_S, self._look)

    def _look(self) -> None:
        if self._over():
            return
        now = self._position()
        if now - self._seen < SLOWEST * STALL_S:
            self._give_up()
            return
        self._seen = now
        self._timer = self._clock.call_later(STALL_S, self._look)

    def cancel(self) -> None:
        """Stop watching."""
        self._timer.cancel()
