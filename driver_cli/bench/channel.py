"""How the bench asks its programs, each a process: a JSON object a line over a loopback connection, in turns."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

from ..local import HOST, Child, Children
from ..race import race

ASK_S = 300.0  # one that takes longer is broken


class Program:
    """One of them, seen from the bench."""

    def __init__(self, process: Child, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer

    async def ask(self, question: str, **details: Any) -> dict[str, Any]:
        """Its answer. Raises ChildDied when it ends, TimeoutError when it takes too long."""
        async with asyncio.timeout(ASK_S):
            self._writer.write(line({"ask": question, **details}))
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await race(self._reader.readline(), self.process.died())
            if not answer:
                await self.process.died()
            told: dict[str, Any] = json.loads(answer)
            return told


async def start_program(started: Children, name: str, module: str, *arguments: str) -> Program:
    """Start `python -m module --bench PORT arguments` and wait until it has called."""
    called: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set_result((reader, writer))

    server = await asyncio.start_server(accept, HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = started.start(name, module, "--bench", str(port), *arguments)
        async with asyncio.timeout(ASK_S):
            reader, writer = await race(_result(called), process.died())
    return Program(process, reader, writer)


class Bench:
    """The bench, seen from a program that blocks."""

    def __init__(self, port: int) -> None:
        self._file = socket.create_connection((HOST, port)).makefile("rwb")

    def questions(self) -> Iterator[dict[str, Any]]:
        """What is asked, until the bench is gone; each is answered before the next."""
        for asked in self._file:
            yield json.loads(asked)

    def answer(self, **told: Any) -> None:
        """Answer the last question."""
        self._file.write(line(told))
        self._file.flush()


def line(message: dict[str, Any]) -> bytes:
    """A message as it travels."""
    return json.dumps(message).encode() + b"\n"


async def _result(
    called: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await called
