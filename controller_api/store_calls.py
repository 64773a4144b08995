"""Calls of the model store from the event loop, and patience with a store that is away for a moment.

What a run waits for is repeated within a bound; what must be done some time is owed until it can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from services.errors import FederationError, StoreUnavailable
from services.store import ModelStore

T = TypeVar("T")
log = structlog.get_logger("controller")
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between the attempts of a call that a run waits for
LONGEST_PAUSE_S = 60.0  # between attempts of calls that are owed


class StoreCalls:
    """Of one store. Nothing is waited for any more once `stopped` is set."""

    def __init__(self, store: ModelStore, stopped: asyncio.Event) -> None:
        self._blocking = store.blocking
        self._stopped = stopped
        self._owed: dict[tuple[Any, ...], None] = {}  # call and arguments, in the order in which they were owed
        self._failed = asyncio.Event()

    async def off_loop(self, call: Callable[..., T], *arguments: Any) -> T:
        """A call of the store: in a thread when it may block."""
        if self._blocking:
            return await asyncio.to_thread(call, *arguments)
        return call(*arguments)

    async def repeat(self, call: Callable[..., T], *arguments: Any) -> T:
        """What the call gives, made in a thread, and again while the store does not answer; raises what it raises."""
        for pause in PAUSES:
            try:
                return await asyncio.to_thread(call, *arguments)
            except StoreUnavailable as error:
                if self._stopped.is_set():
                    raise
                log.warning("the model store is away", again_in_s=pause, error=error.detail)
                await self._pause(pause)
        return await asyncio.to_thread(call, *arguments)

    async def owe(self, *calls: tuple[Any, ...]) -> None:
        """Make these calls (a method of the store and its arguments), after those that are owed, as soon as it can."""
        for call in calls:
            self._owed[call] = None
        await self._settle()

    def cancel(self, *call: Any) -> None:
        """A call that is owed is not wanted any more."""
        self._owed.pop(call, None)

    async def settle_later(self) -> None:
        """Try the calls that failed again, for as long as this runs."""
        pause = PAUSES[0]
        while True:
            await self._failed.wait()
            self._failed.clear()
            await asyncio.sleep(pause)
            await self._settle()
            pause = min(2 * pause, LONGEST_PAUSE_S) if self._owed else PAUSES[0]

    async def _settle(self) -> None:
        while self._owed:
            call = next(iter(self._owed))
            del self._owed[call]
            try:
                await self.off_loop(*call)
            except FederationError as error:
                log.warning("the model store did not take a call", again=error.retryable, error=error.detail)
                if error.retryable:
                    self._owed = {call: None, **self._owed}
                    self._failed.set()
                    return

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return
