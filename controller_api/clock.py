"""The controller's clock, which knows for how long the controller itself stood still.

Its event loop touches it every TICK_S. When a touch is late the loop did not run: the process was stopped, or a piece
of its own work took that long. Nobody could report meanwhile, so that time counts against nobody who is waited for.
Whoever asks first finds it out, not the late touch: after a stop an event loop calls what is due, in any order, before
it reads what has come.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

TICK_S = 0.1
SLACK_S = 0.05  # a touch that is late by less is no stall: so much a busy machine is late without one
EARLY_S = 0.001  # by which a timer of an event loop may ring before its time


class Clock:
    """Times are seconds; `monotonic` is the system's clock. It counts no stalls before its first touch."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._due = math.inf  # when the next touch is late
        self._late_s = 0.0  # by which it is, as far as that is counted
        self._lost_s = 0.0

    def touch(self) -> float:
        """The event loop runs now. How long it did not since it was to touch; 0 for what is no stall."""
        self._look()
        stalled_s, self._late_s = self._late_s, 0.0
        self._due = self._monotonic() + TICK_S
        return stalled_s

    def rest(self) -> None:
        """There are no more touches."""
        self._due, self._late_s = math.inf, 0.0

    def lost(self) -> float:
        """How long the controller stood still, in all."""
        self._look()
        return self._lost_s

    def ran(self) -> float:
        """A monotonic time that stands still while the controller does."""
        return self._look() - self._lost_s

    def _look(self) -> float:
        now = self._monotonic()
        if now - self._due - self._late_s >= SLACK_S:
            self._lost_s += now - self._due - self._late_s
            self._late_s = now - self._due
        return now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back when it has run for so long from now on."""
        return Timer(self, seconds, callback)

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[None]:
        """Raises TimeoutError when what is inside takes longer, as asyncio.timeout does, by this clock."""
        async with asyncio.timeout(None) as limit:
            timer = self.call_later(seconds, lambda: limit.reschedule(0.0))
            try:
                yield
            finally:
                timer.cancel()


class Timer:
    """A call to be made once. One that rings after a stall is set anew by as much: what it waits for may be there,
    unread."""

    __slots__ = ("_callback", "_clock", "_handle", "_loop", "_until")

    def __init__(self, clock: Clock, seconds: float, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._callback = callback
        self._until = clock.ran() + seconds
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(seconds, self._ring)

    def cancel(self) -> None:
        """Do not call."""
        self._handle.cancel()

    def _ring(self) -> None:
        left = self._until - self._clock.ran()
        if left > EARLY_S:
            self._handle = self._loop.call_later(left, self._ring)
        else:
            self._callback()
