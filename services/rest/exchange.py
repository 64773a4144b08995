"""One request and its answer, however they travel: what the client asks of a transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from ..memory import allocate
from ..wire import Buffer

SLOWEST = 64 * 1024  # bytes per second: a body is given this much time on top of the limit


@dataclass(frozen=True)
class Request:
    """A call. `parts` are sent one after the other as the body; `into` takes the answer's body when it is bulk.

    One to be sent `once` is not repeated on a new connection when a kept one is closed: its sender asks what came.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[Buffer] = ()
    into: Download | None = None
    limit_s: float = 30.0
    once: bool = False

    @cached_property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(memoryview(part).nbytes for part in self.parts)

    @property
    def deadline_s(self) -> float:
        """Seconds that the whole exchange may take."""
        bulk = self.length + (self.into.expected if self.into else 0)
        return self.limit_s + bulk / SLOWEST


@dataclass(frozen=True)
class Answer:
    """What came back; header names are lower-case. A bulk body is in the request's `into` instead."""

    request: Request
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """Content-Type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Download:
    """A body that grows over several exchanges: each asks only for what is missing."""

    def __init__(self, expected: int = 0) -> None:
        """`expected` bytes, when they are known; the buffer is then allocated once."""
        self.expected = expected
        self.have = 0
        self.pieces = 0  # exchanges that brought a part of it
        self._buffer = allocate(expected)

    @property
    def headers(self) -> dict[str, str]:
        """Request headers of the next exchange."""
        return {"Range": f"bytes={self.have}-"} if self.have else {}

    def begin(self, status: int, length: int | None) -> None:
        """An answer with a body of `length` bytes begins (None: unknown)."""
        if status != 206:
            self.have = 0
        self.pieces += 1
        self._room(self.have + (length or 0))

    def write(self, data: Buffer) -> None:
        """Append bytes that came."""
        size = memoryview(data).nbytes
        self._room(self.have + size)
        self._buffer[self.have : self.have + size] = data
        self.have += size

    def free(self) -> memoryview:
        """The room that is left, to be written by the socket itself; `wrote` says how much was."""
        return self._buffer[self.have :]

    def wrote(self, size: int) -> None:
        """`size` bytes were written into `free()`."""
        self.have += size

    def body(self) -> memoryview:
        """The whole body."""
        return self._buffer[: self.have]

    def _room(self, size: int) -> None:
        if size > len(self._buffer):
            grown = allocate(max(size, len(self._buffer) * 3 // 2) if self.have else size)
            grown[: self.have] = self._buffer[: self.have]
            self._buffer = grown


class Transport(Protocol):
    """Carries requests."""

    async def send(self, request: Request) -> Answer:
        """The answer, whatever its status; raises Unreachable when there is none, or its body was cut."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
