"""The body of one request, on whichever way it comes: how much of it is here, and since when nothing came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.types import Message, Receive

from services.errors import BodyTooSlow, FederationError, TooLarge

T = TypeVar("T")
LOOK_S = 0.5  # between two looks at a body
AGAIN = "send it again; a large result of declared length goes on where HEAD says"


class Watcher(Protocol):
    """Looks at bodies while they are read."""

    def watch(self, body: Incoming) -> None:
        """Look at it from now on."""

    def forget(self, body: Incoming) -> None:
        """Look at it no more."""


class Incoming:
    """The body of one request: within its limit, at its pace; whoever waits for more of it, or to begin with it, can
    be stopped."""

    __slots__ = (
        "_counts",
        "_ended",
        "_error",
        "_limit",
        "_pace",
        "_reason",
        "_timeout",
        "_whole",
        "age_s",
        "came",
        "learner",
        "silent_s",
        "size",
        "waited_for",
    )

    def __init__(self, pace: Watcher | None, size: int | None, limit: int) -> None:
        """`size`: bytes that were declared, None when it comes in chunks. Without a pace there is no body."""
        self.size = size
        self.came = 0  # bytes
        self.learner = ""  # in whose name it has a slot, or waits for one
        self.waited_for = 0  # by how many others that send the same result
        self.age_s = self.silent_s = 0.0  # at the last look; it is older by less than LOOK_S
        self._counts: deque[int] | None = None  # of bytes that were here, at the last looks
        self._limit, self._reason = limit, ""
        self._pace = pace
        self._ended = pace is None
        self._whole = False
        self._error: FederationError | None = None
        self._timeout: asyncio.Timeout | None = None  # of whoever waits for something

    @property
    def reading(self) -> bool:
        """Whether it can still be stopped: it is neither whole nor given up."""
        return not self._ended and self._error is None

    @property
    def stopped(self) -> bool:
        """Whether it was given up."""
        return self._error is not None

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return self._whole or (self.size is not None and self.came >= self.size)

    @property
    def recent(self) -> int:
        """Bytes that came within the window, at the last look."""
        return self._counts[-1] - self._counts[0] if self._counts else self.came

    def narrow(self, limit: int, reason: str) -> None:
        """It may have no more than `limit` bytes; TooLarge, at once if its length was said, says the reason."""
        if limit < self._limit:
            self._limit, self._reason = limit, reason
        if self.size is not None and self.size > self._limit:
            told = f"the body has {self.size} bytes, the limit is {self._limit}{self._reason}"
            raise TooLarge(told, limit=self._limit, got=self.size)

    def reader(self, receive: Receive) -> Receive:
        """`receive` that raises TooLarge, and what stopped the body."""

        async def limited() -> Message:
            if self._ended:
                return await receive()
            self.begin()
            message = await self.wait(receive)
            self.came += len(message.get("body", b""))
            if self.came > self._limit:
                told = f"the body is longer than the limit of {self._limit} bytes{self._reason}"
                raise TooLarge(told, limit=self._limit)
            if not message.get("more_body", False):
                self._whole = message["type"] == "http.request"
                self.end()
            return message

        return limited

    def begin(self) -> None:
        """It is read from now on: its time runs."""
        if self._pace is not None and not self._ended:
            self._pace.watch(self)

    def end(self) -> None:
        """It is whole, or nobody reads it any more."""
        if not self._ended and self._pace is not None:
            self._ended = True
            self._pace.forget(self)

    async def wait(self, coming: Callable[[], Awaitable[T]]) -> T:
        """What is waited for; raises the error of `stop` in its place."""
        if self._error is not None:
            raise self._error
        try:
            async with asyncio.timeout(None) as self._timeout:
                return await coming()
        except TimeoutError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            self._timeout = None

    def stop(self, why: str) -> None:
        """Whoever waits for it is told BodyTooSlow; nothing happens when it is whole."""
        if self.reading:
            expected = {} if self.size is None else {"expected": self.size}
            self._error = BodyTooSlow(f"{why}: {AGAIN}", got=self.came, **expected)
            if self._timeout is not None:
                self._timeout.reschedule(asyncio.get_running_loop().time())

    def look(self, window_s: float) -> None:
        """Count what came since the last look."""
        if self._counts is None:
            self._counts = deque((self.came,), max(2, round(window_s / LOOK_S) + 1))
            return
        self.age_s += LOOK_S
        self.silent_s = 0.0 if self.came > self._counts[-1] else self.silent_s + LOOK_S
        self._counts.append(self.came)


def incoming_of(request: Request) -> Incoming:
    """The body of a request, as the gate let it in; one without bytes when it has none."""
    found: Incoming | None = request.scope.get("state", {}).get("incoming")
    return found or Incoming(None, 0, 0)
