"""The far end of webhooks in tests: a bare server that records what comes and answers what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Received:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`requests` are those that came; `answer` is sent to each once `answering` is set, then again while `endless`."""

    port: int = 0
    answer: bytes = TAKEN
    endless: bool = False
    requests: list[Received] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)  # the sender closed before the answer's end
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/poll-now"

    async def came(self, count: int) -> list[Received]:
        """Wait for so many requests, within a bound."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)
            return self.requests

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            originals = dict(line.split(": ", 1) for line in head[1:] if line)
            headers |= {name.lower(): value for name, value in originals.items()}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            async with self._news:
                self.requests.append(Received(head[0], headers, body))
                self._news.notify_all()
            await self.answering.wait()
            writer.write(self.answer)
            try:
                await writer.drain()
                while self.endless:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            except OSError:
                self.hung_up.set()
        writer.close()


@asynccontextmanager
async def receiving(
    answer: bytes = TAKEN, *, held: bool = False, endless: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """A receiver on a free port of 127.0.0.1; `held`: it answers nothing until `answering` is set."""
    receiver = Receiver(answer=answer, endless=endless)
    if not held:
        receiver.answering.set()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.answering.set()
        receiver.endless = False
        server.close()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` that vouches for itself, and its key; skips the test where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificates with the openssl command")
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-days", "2"),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return made, key


def server_tls(made: Path, key: Path) -> ssl.SSLContext:
    """The receiver's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context
