"""A reverse proxy with a mind of its own: it refuses requests with a page, cuts them, or passes them on unbuffered."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

PIECE = 1 << 16  # bytes
LINGER_S = 5.0  # how long what is still sent after a refusal is read
NAME = "gate/1.0"
HTML = "text/html"


@dataclass(frozen=True)
class Call:
    """A request as it comes: `what` is the path's last segment, such as `result`."""

    method: str
    path: str
    length: int

    @property
    def what(self) -> str:
        """The last segment of the path."""
        return self.path.partition("?")[0].rpartition("/")[2]


@dataclass(frozen=True)
class Page:
    """An answer of the proxy's own."""

    status: int
    body: str = "<h1>no</h1>"
    media_type: str = HTML


Judge = Callable[[Call], Page | int | None]


class Gateway:
    """The way to a port of loopback, one request a connection. `judge` says how a request is refused, if it is."""

    def __init__(self, port: int) -> None:
        self.judge: Judge = lambda call: None
        self.cuts: deque[int | None] = deque()  # bytes after which the next large bodies of results are cut, one each
        self.answers: Counter[tuple[str, str, int]] = Counter()  # method, last segment and status, as they were given
        self.refused: Counter[tuple[str, str, int]] = Counter()  # those of its own
        self.largest = 0  # bytes of a body that was passed on
        self.url = ""
        self._target = port
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._exchange(reader, writer)
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").strip().split("\r\n")
        method, path, _ = line.split(" ")
        named = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
        call = Call(method, path, int(named.get("content-length", 0)))
        refusal = self.judge(call)
        if refusal is not None:
            page = Page(refusal) if isinstance(refusal, int) else refusal
            return await self._refuse(call, page, reader, writer)
        try:
            there, onwards = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return await self._refuse(call, Page(502), reader, writer)
        try:
            onwards.write(head[:-2] + b"Connection: close\r\n\r\n")
            passing = asyncio.create_task(self._pass(call, reader, onwards))
            back = asyncio.create_task(self._answer(call, there, writer))
            await asyncio.wait((passing, back), return_when=asyncio.FIRST_COMPLETED)
            early = not passing.done()
            if early or not passing.result():
                await back
            passing.cancel()
            back.cancel()
            if early:
                await asyncio.wait((passing,))
                await _drain(reader)
        finally:
            onwards.transport.abort()

    async def _pass(self, call: Call, reader: asyncio.StreamReader, onwards: asyncio.StreamWriter) -> bool:
        """Pass a body on; True when it was cut."""
        left = call.length
        cut = self.cuts.popleft() if self.cuts and call.what == "result" and left > PIECE else None
        with suppress(ConnectionError):
            while left and (cut is None or call.length - left < cut):
                data = await reader.read(PIECE)
                if not data:
                    return True
                left -= len(data)
                onwards.write(data)
                await onwards.drain()
        if not left:
            self.largest = max(self.largest, call.length)
        return left > 0

    async def _answer(self, call: Call, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await there.readuntil(b"\r\n\r\n")
        self.answers[call.method, call.what, int(head.split(b" ", 2)[1])] += 1
        writer.write(head)
        while data := await there.read(PIECE):
            writer.write(data)
            await writer.drain()

    async def _refuse(self, call: Call, page: Page, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer at once, then read what is still sent for a while, as proxies do."""
        self.refused[call.method, call.what, page.status] += 1
        body = page.body.encode()
        head = f"HTTP/1.1 {page.status} No\r\nServer: {NAME}\r\nContent-Type: {page.media_type}\r\n"
        length = 0 if call.method == "HEAD" else len(body)
        writer.write(f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n".encode() + body[:length])
        await writer.drain()
        await _drain(reader)


async def _drain(reader: asyncio.StreamReader) -> None:
    """Read what is still sent, for a while: an answer is lost when its connection is closed on unread bytes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while await reader.read(PIECE):
                pass
