"""A plain HTTP/1.1 client for the case that no proxy and no TLS stand in between: bodies move by the socket's own
reads and writes, into and out of the arrays' memory. Anything unusual is left to the stock client (`NotPlain`).

Follows RFC 9112 for what a client needs: one exchange at a time on a connection, bodies by Content-Length.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import cast
from urllib.parse import urlsplit

from ..errors import Unreachable
from ..weights import Buffer
from .exchange import Answer, Download, Request

PIECE = 1 << 20  # bytes in one system call: larger gains nothing
HEAD_PIECE = 1 << 13  # bytes in one system call while a head, or a body of JSON, is read
JOINED = 1 << 16  # small parts are sent together up to this size
HEAD_LIMIT = 1 << 16  # bytes of an answer's head
BODY_LIMIT = 1 << 28  # bytes of an answer that is no download: JSON


class NotPlain(Exception):
    """The answer is of a kind that this client does not read."""


class Direct:
    """Transport over connections that are kept and used again."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[Connection]] = {}

    async def send(self, request: Request) -> Answer:
        """See Transport.send."""
        parts = urlsplit(request.url)
        where = (parts.hostname or "", parts.port or 80)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            async with asyncio.timeout(request.deadline_s):
                answer = await self._send(where, parts.netloc, target, request)
        except TimeoutError:
            self._abort(self._idle.get(where, []))  # they go the same way
            raise Unreachable(
                f"no answer from {parts.netloc} within {request.deadline_s:.0f} s", url=request.url
            ) from None
        return answer

    async def _send(self, where: tuple[str, int], netloc: str, target: str, request: Request) -> Answer:
        idle = self._idle.setdefault(where, [])
        while idle:  # a kept connection may have been closed meanwhile: then a new one is opened
            connection = idle.pop()
            if connection.usable:
                try:
                    return await self._exchange(connection, idle, netloc, target, request)
                except NothingCame as error:
                    if request.once:
                        raise Unreachable(f"{netloc} closed the connection", url=request.url) from error
        try:
            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_connection(Connection, *where)
        except OSError as error:
            raise Unreachable(f"no connection to {netloc}: {error.strerror or error}", url=request.url) from error
        try:
            return await self._exchange(protocol, idle, netloc, target, request)
        except NothingCame as error:
            raise Unreachable(f"{netloc} closed the connection without an answer", url=request.url) from error

    async def _exchange(
        self, connection: Connection, idle: list[Connection], netloc: str, target: str, request: Request
    ) -> Answer:
        try:
            answer = await connection.exchange(netloc, target, request)
        except BaseException:
            connection.abort()
            raise
        if connection.usable:
            idle.append(connection)
        else:
            connection.abort()
        return answer

    async def close(self) -> None:
        """See Transport.close."""
        for idle in self._idle.values():
            self._abort(idle)

    def _abort(self, idle: list[Connection]) -> None:
        while idle:
            idle.pop().abort()


class NothingCame(Exception):
    """The connection ended before any byte of an answer: safe to repeat on another."""


class Connection(asyncio.BufferedProtocol):
    """One connection; reads an answer's head into a small buffer and its body straight into where it belongs."""

    def __init__(self) -> None:
        self.usable = True
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._head = bytearray(HEAD_LIMIT)
        self._got = 0
        self._request: Request | None = None
        self._sink: Download | None = None
        self._left = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self._answer: asyncio.Future[Answer] | None = None

    # ---- one exchange
    async def exchange(self, netloc: str, target: str, request: Request) -> Answer:
        """Send the request and wait for its answer, which may come before the body is all sent."""
        assert self._transport is not None
        self._request, self._sink, self._got, self._left, self._headers = request, None, 0, 0, {}
        self._answer = asyncio.get_running_loop().create_future()
        for piece in _pieces(_head_of(netloc, target, request), request.parts):
            if self._answer.done():
                self.usable = False  # answered early: the rest of the body is not wanted
                break
            self._transport.write(piece)
            if not self._writable.is_set():
                await self._until_writable()
        return await self._answer

    async def _until_writable(self) -> None:
        """Until the socket takes more, or there is nothing more to send for."""
        assert self._answer is not None
        ready = asyncio.ensure_future(self._writable.wait())
        try:
            await asyncio.wait((ready, self._answer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()

    def abort(self) -> None:
        """Close at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.BufferedProtocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        watch(transport.get_extra_info("socket"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: the head's buffer, or the body's place."""
        if self._sink is not None:
            return self._sink.free()[: min(self._left, PIECE)]
        return memoryview(self._head)[self._got : self._got + HEAD_PIECE]  # a large body stays in the socket

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if self._answer is None or self._answer.done():
            self.abort()  # nothing was asked for
        elif self._sink is not None:
            self._sink.wrote(nbytes)
            self._left -= nbytes
            if not self._left:
                self._finish(b"")
        else:
            self._got += nbytes
            self._read_head()

    def eof_received(self) -> None:
        """The peer sends no more."""
        self.usable = False

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.usable = False
        self._writable.set()
        if self._answer is not None and not self._answer.done() and self._request is not None:
            if self._got == 0 and self._sink is None:
                self._answer.set_exception(NothingCame())
            else:
                self._answer.set_exception(Unreachable("the answer was cut", url=self._request.url))

    # ---- reading an answer
    def _read_head(self) -> None:
        end = self._head.find(b"\r\n\r\n", 0, self._got)
        if end < 0:
            if self._left == 0 and self._got >= HEAD_LIMIT:
                self._fail(NotPlain("the head of the answer is too long"))
            return
        if not self._headers:
            self._parse(bytes(self._head[:end]))
        assert self._answer is not None
        if not self._answer.done():
            self._read_body(end + 4)

    def _parse(self, head: bytes) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = line.partition(" ")
        if version != "HTTP/1.1" or not rest[:3].isdigit():
            return self._fail(NotPlain(f"not an HTTP/1.1 answer: {line[:80]!r}"))
        self._status = int(rest[:3])
        for field in lines:
            name, _, value = field.partition(":")
            self._headers[name.strip().lower()] = value.strip()
        if self._status < 200 or "transfer-encoding" in self._headers:
            return self._fail(NotPlain("an answer without a declared length"))
        if self._headers.get("connection", "").lower() == "close":
            self.usable = False
        return None

    def _read_body(self, start: int) -> None:
        """The head is read; what follows it in the buffer is the beginning of the body."""
        assert self._request is not None
        bodiless = self._request.method == "HEAD" or self._status in (204, 304)
        length = self._headers.get("content-length", "0" if bodiless else "")
        if not length.isdigit():
            return self._fail(NotPlain("an answer without a declared length"))
        size = 0 if bodiless else int(length)
        if self._request.into is None and size > BODY_LIMIT:
            return self._fail(NotPlain("an answer of more bytes than any of this contract"))
        got = min(self._got - start, size)
        if self._request.into is not None and self._status in (200, 206):
            sink = self._request.into
            sink.begin(self._status, size)
            sink.write(memoryview(self._head)[start : start + got])
            self._left = size - got
            if self._left:
                self._sink = sink
                return None
            return self._finish(b"")
        if got == size:
            return self._finish(bytes(self._head[start : start + size]))
        if start + size > len(self._head):
            self._head = self._head + bytes(start + size - len(self._head))  # anew: asyncio still holds a view of it
        return None

    def _finish(self, body: bytes) -> None:
        assert self._answer is not None
        assert self._request is not None
        self._sink = None
        self._answer.set_result(Answer(self._request, self._status, self._headers, body))

    def _fail(self, error: Exception) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _head_of(netloc: str, target: str, request: Request) -> bytes:
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.parts or request.method in ("PUT", "POST", "PATCH"):
        lines.append(f"Content-Length: {request.length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _pieces(head: bytes, parts: Sequence[Buffer]) -> Iterator[Buffer]:
    """What is written, in pieces: small parts together, large ones from their own memory."""
    together: list[Buffer] = [head]
    size = len(head)
    for part in parts:
        length = len(part) if isinstance(part, bytes) else memoryview(part).nbytes
        if size + length > JOINED:
            yield b"".join(together)
            together, size = [], 0
        if length <= JOINED:
            together.append(part)
            size += length
            continue
        view = memoryview(part).cast("B")
        for at in range(0, length, PIECE):
            yield view[at : at + PIECE]
    if together:
        yield b"".join(together)


SILENT_S = 45  # what is sent is acknowledged after so long, or the connection is given up
IDLE_S, PROBE_S = 30, 5  # after so long without a byte the other side is probed, so often
OPTIONS = (
    ("TCP_KEEPIDLE", IDLE_S),
    ("TCP_KEEPINTVL", PROBE_S),
    ("TCP_KEEPCNT", (SILENT_S - IDLE_S) // PROBE_S),
    ("TCP_USER_TIMEOUT", SILENT_S * 1000),  # RFC 5482
)


def watch(connection: socket.socket) -> None:
    """Have the system notice, as far as it can, that the other side is gone without a word.

    A router lost its table, a machine its power: TCP alone would wait for a quarter of an hour for what it sent, and
    for ever for what it was promised.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in OPTIONS:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
