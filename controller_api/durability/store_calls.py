"""Calls of the model store from the event loop, and patience with a store that is away or full for a moment.

What a run waits for is repeated within a bound; what must be done some time is owed until it can be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from services.errors import DiskFull, FederationError, StoreUnavailable, UnknownModel
from services.store import ModelStore

T = TypeVar("T")
log = structlog.get_logger("controller")
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between the attempts of a call that a run waits for
FULL_PAUSE_S = 5.0  # the same while the disk is full
FULL_PATIENCE_S = 3600.0  # with a full disk: somebody has to make room
LONGEST_PAUSE_S = 60.0  # between attempts of calls that are owed
THREADS = 32  # calls at once: a store that hangs holds up nobody who does not want it
LOOK_S = 2.0  # how long the store may take to say that it is there
LOOK_AGAIN_S = 1.0  # what it said holds for so long
NO_MODEL = "none"  # the key of no model


@dataclass(frozen=True)
class HeldUp:
    """What a run waits for cannot be done now. Times are seconds on the monotonic clock."""

    why: str
    since: float
    again_at: float
    until: float | None = None  # about when it is given up

    def text(self, now: float) -> str:
        """In words."""
        again = f"tries again in {max(0.0, self.again_at - now):.0f} s"
        ends = "" if self.until is None else f", the run fails in {max(0.0, self.until - now):.0f} s"
        return f"held up for {now - self.since:.0f} s: {self.why}; {again}{ends}"


class StoreCalls:
    """Of one store. Nothing is waited for any more once `stopped` is set."""

    def __init__(self, store: ModelStore, stopped: asyncio.Event) -> None:
        self.held_up: HeldUp | None = None
        self._store = store
        self._look: asyncio.Task[bool] | None = None  # the newest, under way or done
        self._looked_at = 0.0
        self._blocking = store.blocking
        self._stopped = stopped
        self._owed: dict[tuple[Any, ...], None] = {}  # call and arguments, in the order in which they were owed
        self._failed = asyncio.Event()
        self._threads = ThreadPoolExecutor(THREADS, "store")
        self._failing = False  # calls that are owed wait for the next attempt
        self.order = asyncio.Lock()  # a document is not stored while a call that is owed is made: that may drop it

    async def off_loop(self, call: Callable[..., T], *arguments: Any) -> T:
        """A call of the store: in a thread when it may block."""
        if self._blocking:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
        return call(*arguments)

    def close(self) -> None:
        """Make no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def repeat(self, call: Callable[..., T], *arguments: Any) -> T:
        """What the call gives, made in a thread, and again while the store does not answer or has no room; raises what
        it raises. Meanwhile `held_up` says so."""
        since, pauses = time.monotonic(), list(PAUSES)
        try:
            while True:
                try:
                    return await asyncio.to_thread(call, *arguments)
                except (StoreUnavailable, DiskFull) as error:
                    held_up = _held_up(error, since, pauses)
                    if held_up is None or self._stopped.is_set():
                        raise
                    pause = held_up.again_at - time.monotonic()
                    log.warning("the model store cannot do this now", again_in_s=round(pause, 1), error=error.detail)
                    self.held_up = held_up
                await self._pause(pause)
        finally:
            self.held_up = None

    async def store_answers(self) -> bool:
        """Whether the store answers, as it was at most a second ago. All who ask at once wait for one look."""
        if self._look is None or (self._look.done() and time.monotonic() - self._looked_at >= LOOK_AGAIN_S):
            self._look, self._looked_at = asyncio.create_task(self._look_at_store()), time.monotonic()
        done, _ = await asyncio.wait([self._look], timeout=LOOK_S)
        return bool(done) and self._look.result()

    async def _look_at_store(self) -> bool:
        try:
            await self.off_loop(self._store.get, NO_MODEL)
        except UnknownModel:
            return True
        except FederationError:
            return False
        return True

    async def owe(self, *calls: tuple[Any, ...]) -> None:
        """Make these calls (a method of the store and its arguments), after those that are owed, as soon as it can."""
        for call in calls:
            self._owed[call] = None
        if not self._failing:
            await self._pay()

    def owe_later(self, *call: Any) -> None:
        """Make this call in a moment: the store does not answer now."""
        self._owed[call] = None
        self._failed.set()

    def cancel(self, *call: Any) -> None:
        """A call that is owed is not wanted any more."""
        self._owed.pop(call, None)

    async def retry_owed(self) -> None:
        """Try the calls that failed again, for as long as this runs."""
        pause = PAUSES[0]
        while True:
            await self._failed.wait()
            self._failed.clear()
            await asyncio.sleep(pause)
            self._failing = False
            await self._pay()
            pause = min(2 * pause, LONGEST_PAUSE_S) if self._owed else PAUSES[0]

    async def _pay(self) -> None:
        """One call after the other, whoever asks: an older one that was slow must not undo a newer one."""
        async with self.order:
            while self._owed and not self._failing:
                call = next(iter(self._owed))
                try:
                    await self.off_loop(*call)
                except FederationError as error:
                    log.warning("the model store did not take a call", again=error.retryable, error=error.detail)
                    if error.retryable:
                        self._failing = True
                        self._failed.set()
                        return
                self._owed.pop(call, None)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return


def _held_up(error: FederationError, since: float, pauses: list[float]) -> HeldUp | None:
    """How a call that failed goes on, taking the next of `pauses`; None when patience is over."""
    now = time.monotonic()
    if isinstance(error, DiskFull):
        until = since + FULL_PATIENCE_S
        return HeldUp(error.detail, since, now + FULL_PAUSE_S, until) if now < until else None
    until = now + sum(pauses)
    return HeldUp(error.detail, since, now + pauses.pop(0), until) if pauses else None
