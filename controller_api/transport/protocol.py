"""uvicorn's HTTP protocol with bodies that move between socket and memory (or file) without a copy in between.

On top of the stock class, for plain connections, an app finds in `scope["extensions"]`:

- `metis.receive_into`: `await receive_into(buffer, body)` lets the socket write a body of declared length straight into
  `buffer` (an asyncio.BufferedProtocol takes the connection over for that long); `body.came` are the bytes that came:
  fewer when the peer left, or when `body` was stopped, whose error is raised then;
- `metis.gone`: `gone()` gives a future that is done once the peer has left;
- `http.response.zerocopysend` (a standard ASGI extension): a part of a file goes out by sendfile.

It also bounds what the stock class does not: the head of a request and what stands between the pieces of its body in
size and time, an answer in rate, and the connections of those who show no token. The `Clock` of these times and these
`Strangers` are the app's, in the state that its lifespan gives; each request finds `known` in its own state, to be
called once its sender is.
It uses uvicorn's internals, so uvicorn is pinned; `tests/controller_api/transport/test_protocol.py` runs the same
requests through this class and the stock one.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from services.errors import FederationError, HeadTooLarge, HeadTooSlow, NotParseable

from ..clock import Clock, Timer
from ..futures import complete
from ..problems import body_of, status_of
from . import protocol as near
from .incoming import Incoming
from .receiver import PIECE, Reader, Sink, Watch
from .rest import LINGER_BYTES, LINGER_S
from .strangers import Strangers

HEAD_BYTES = 64 * 1024  # largest head of a request: request line and headers
HEAD_FIELDS = 100  # most header fields
HEAD_S = 10.0  # a head must be there after so long
REFUSED = (  # in the answer to what is no request
    (b"content-type", b"application/problem+json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"connection", b"close"),
)


class Flag(asyncio.Event):
    """An event whose list of waiters is a tenth as large: each of thousands of connections has two."""

    def __init__(self) -> None:
        super().__init__()
        self._waiters = []  # type: ignore[assignment]  # appended to and removed from, no more


class ZeroCopyProtocol(HttpToolsProtocol):
    """See the module."""

    # 1 KB less: the dict stays shared
    __slots__ = (
        "_between",
        "_clock",
        "_gone",
        "_head_fields",
        "_head_open",
        "_head_size",
        "_head_timer",
        "_reader",
        "_refused",
        "_strangers",
        "_unread",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock: Clock = self.app_state.get("clock") or Clock()
        self._strangers: Strangers = self.app_state.get("strangers") or Strangers(None)
        self._head_size = 0  # bytes of a head, or between two pieces of a body: its chunks' sizes, the trailers
        self._head_fields = 0
        self._head_open = False  # bytes of a head have come, its end has not
        self._between = False  # a body comes in chunks, and no byte of one has come since `_head_size` was 0
        self._head_timer: Timer | asyncio.TimerHandle | None = None  # or for what is read and dropped after a refusal
        self._unread: Watch | None = None  # of an answer that the peer is to read
        self._refused = False
        self._gone: asyncio.Future[None] | None = None  # done once the peer is

    # ---- the head of a request, bounded
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.BaseProtocol."""
        super().connection_made(transport)
        near.bound(transport.get_extra_info("socket"))
        if self.scheme == "http":
            self._reader = Reader(self)
            transport.set_protocol(self._reader)
        self.flow._is_writable_event = Flag()
        self.flow._is_writable_event.set()
        self._strangers.came(self, self._peer, transport.abort)
        self._arm_head_timer()

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._refused:
            self._head_size += len(data)
            if self._head_size > LINGER_BYTES:
                self.transport.close()
        if self._refused or self.parser is None:
            return
        super().data_received(data)
        if not (self._head_open or self._between):
            return
        if self._head_open and self._head_timer is None:
            self._arm_head_timer()
        self._head_size += len(data)
        if self._head_size > HEAD_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["state"]["known"] = self._known
        self._head_open, self._between, self._head_size, self._head_fields = True, False, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of the trailers, which nobody reads."""
        self._head_fields += 1
        if self._head_open:
            super().on_header(name, value)
        elif self._head_fields > HEAD_FIELDS:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head is whole: judge its size, start the app."""
        self._head_open = False
        self._disarm_head_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_size = size
        if size > HEAD_BYTES or len(self.headers) > HEAD_FIELDS:
            self._refuse_head()
        if not self._refused:
            self._strangers.asked(self, self._peer, self.headers, self.transport.abort)
            super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """The size of a chunk; after the last one come the trailers. See httptools."""
        self._between = True

    def on_body(self, body: bytes) -> None:
        """See HttpToolsProtocol."""
        self._between, self._head_size = False, 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._between = False
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """See HttpToolsProtocol."""
        super().on_response_complete()
        self._strangers.answered(self, self._peer)
        if self.cycle.response_complete and self.cycle.more_body:  # what is left of the body is more than is dropped
            self.transport.close()
        self._watch_reading()

    def _known(self) -> None:
        """The sender of a request has shown a token."""
        self._strangers.forget(self)

    # ---- an answer, at a pace
    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        super().pause_writing()
        self._watch_reading()

    def _watch_reading(self) -> None:
        """End the connection when the peer does not read what was written to it."""
        unread = self.transport.get_write_buffer_size
        if self._unread is None and unread():
            self._unread = Watch(self._clock, lambda: -unread(), self.transport.abort, self._all_read)

    def _all_read(self) -> bool:
        if self.transport.get_write_buffer_size():
            return False
        self._unread = None
        return True

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets a problem document too."""
        self._refuse(NotParseable(msg))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._disarm_head_timer()
        self._strangers.forget(self)
        if self._unread is not None:
            self._unread.cancel()
        if self._gone is not None:
            complete(self._gone)
        super().connection_lost(exc)

    def _arm_head_timer(self) -> None:
        self._disarm_head_timer()
        self._head_timer = self._clock.call_later(HEAD_S, self._head_is_late)

    def _disarm_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._head_open:
            self._refuse(HeadTooSlow(f"the head of a request must be there within {HEAD_S:g} s", limit=HEAD_S))
        elif self.cycle is None:
            self.transport.close()

    def _refuse_head(self) -> None:
        """It, or its trailers."""
        told = f"the head of a request, and the trailers, may have {HEAD_BYTES} bytes in {HEAD_FIELDS} fields"
        self._refuse(HeadTooLarge(told, limit=HEAD_BYTES))

    def _refuse(self, error: FederationError) -> None:
        """Answer before there is a request, and close."""
        if self._refused or self.transport.is_closing():
            return
        self._refused, self._head_size = True, 0
        self._disarm_head_timer()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            content = json.dumps(body_of(error)).encode()
            fields = [*self.server_state.default_headers, *REFUSED, (b"content-length", b"%d" % len(content))]
            head = b"".join(b"%s: %s\r\n" % field for field in fields)
            self.transport.write(STATUS_LINE[status_of(type(error))] + head + b"\r\n" + content)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._head_timer = self.loop.call_later(LINGER_S, self.transport.close)

    # ---- the extensions
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.scheme == "https":
            super()._start_asgi_task(cycle, app)
            return

        cycle.message_event = Flag()
        if not cycle.more_body:
            cycle.message_event.set()
        extended = Extended(self, cycle, app)
        extensions: dict[str, Any] = {
            "http.response.zerocopysend": {},
            "metis.receive_into": extended.receive_into,
            "metis.gone": self.gone,
        }
        cycle.scope["extensions"] = extensions
        super()._start_asgi_task(cycle, extended)

    def gone(self) -> asyncio.Future[None]:
        """A future that is done once the peer has left."""
        if self._gone is None or self._gone.done():
            self._gone = self.loop.create_future()
            if self.transport.is_closing():
                complete(self._gone)
        return self._gone

    async def receive_into(self, cycle: RequestResponseCycle, buffer: memoryview, body: Incoming) -> None:
        """Fill `buffer` with the body; raises what it was stopped by."""
        came = len(cycle.body)
        if came > len(buffer):
            raise NotParseable("the body is longer than it was declared")
        buffer[:came] = cycle.body
        cycle.body = bytearray()
        body.came = came
        if not cycle.more_body or cycle.disconnected:
            return
        if cycle.waiting_for_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        self.flow.pause_reading()
        sink = Sink(self, self._reader, buffer, body)
        self.transport.set_protocol(sink)
        self.flow.resume_reading()
        try:
            await body.wait(lambda: sink.done)
        finally:
            sink.detach()
        if body.came < len(buffer):
            return
        self.parser = httptools.HttpRequestParser(self)  # the old one never saw this body: begin anew for keep-alive
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        cycle.more_body = False

    async def zero_copy_send(self, cycle: RequestResponseCycle, message: Any) -> None:
        """A part of a file as the (rest of the) answer's body."""
        count = message["count"]
        if cycle.scope["method"] != "HEAD":
            await self._send_file(message["file"].fileno(), message.get("offset", 0), count)
            cycle.expected_content_length -= count  # bytes that went out behind the cycle's back
        await cycle.send({"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)})

    async def _send_file(self, file: int, offset: int, count: int) -> None:
        """os.sendfile on the connection's own socket, as fast as the peer reads."""
        self.transport.set_write_buffer_limits(high=0)
        if self.transport.get_write_buffer_size():
            await self.flow.drain()
        socket = os.dup(self.transport.get_extra_info("socket").fileno())
        sent = 0
        stalled = self.loop.create_future()
        watch = Watch(self._clock, lambda: sent, lambda: complete(stalled))
        try:
            while sent < count and not self.transport.is_closing():
                try:
                    moved = os.sendfile(socket, file, offset + sent, min(count - sent, PIECE))
                except BlockingIOError:
                    await self._until_writable(socket, stalled)
                    continue
                if moved == 0:
                    raise OSError("the file is shorter than was said")
                sent += moved
                if moved == PIECE:
                    await asyncio.sleep(0)
        except (BrokenPipeError, ConnectionResetError):
            self.transport.abort()
        finally:
            watch.cancel()
            os.close(socket)

    async def _until_writable(self, socket: int, stalled: asyncio.Future[None]) -> None:
        writable = self.loop.create_future()
        self.loop.add_writer(socket, complete, writable)
        try:
            await asyncio.wait((writable, stalled), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.loop.remove_writer(socket)
        if stalled.done():
            self.transport.abort()


class Extended:
    """The app for one request of a plain connection, with the extensions. It is thin: thousands of polls have one."""

    __slots__ = ("_app", "_cycle", "_http", "_send")

    def __init__(self, http: ZeroCopyProtocol, cycle: RequestResponseCycle, app: Any) -> None:
        self._http = http
        self._cycle = cycle
        self._app = app

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """See ASGI."""
        self._send = send
        answered: Awaitable[None] = self._app(scope, receive, self.send)
        return answered

    def send(self, message: Any) -> Awaitable[None]:
        """The app's `send`."""
        if message["type"] == "http.response.zerocopysend":
            return self._http.zero_copy_send(self._cycle, message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._cycle.scope["extensions"].clear()  # they hold the cycle: no work for the garbage collector
        sent: Awaitable[None] = self._send(message)
        return sent

    def receive_into(self, buffer: memoryview, body: Incoming) -> Awaitable[None]:
        """See the module."""
        return self._http.receive_into(self._cycle, buffer, body)


NEAR_S = 200e-6  # round-trip time of a peer on this machine, at most
ON_THEIR_WAY = 1 << 18  # bytes: over NEAR_S still a gigabyte per second
RTT = struct.Struct("68xI")  # tcpi_rtt of Linux's struct tcp_info, in microseconds


def bound(connection: socket.socket) -> None:
    """Bound what may be on its way, if the peer is near; does nothing where the system cannot tell.

    The kernel lets megabytes be on their way, which a long way needs (bandwidth times delay). Over a short one they
    only make the data leave the processor's cache before the peer reads them: on one machine that halves the speed.
    """
    if not hasattr(socket, "TCP_INFO") or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RTT.size)
    if len(info) == RTT.size and RTT.unpack(info)[0] < NEAR_S * 1e6:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ON_THEIR_WAY)
