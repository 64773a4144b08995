"""Waiting: polls for news, each until it is woken, its time is over or its caller hangs up; and an alarm for one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..futures import complete


class Polls:
    """By learner; a learner may have several, the last of a connection that is not yet known to be lost."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def wait(self, learner_id: str, seconds: float, hangup: asyncio.Future[None]) -> None:
        """Wait; `hangup` is done when the caller is gone."""
        loop = asyncio.get_running_loop()
        wake = loop.create_future()
        timer = loop.call_later(seconds, complete, wake)
        hangup.add_done_callback(lambda _: complete(wake))
        waiting = self._waiting.setdefault(learner_id, [])
        waiting.append(wake)
        try:
            await wake
        finally:
            timer.cancel()
            waiting.remove(wake)
            if not waiting:
                del self._waiting[learner_id]

    def wake(self, learner_ids: Iterable[str]) -> None:
        """There is news for these learners."""
        for learner_id in learner_ids:
            for wake in self._waiting.get(learner_id, ()):
                complete(wake)

    def wake_all(self) -> None:
        """Let every poll end."""
        self.wake(list(self._waiting))


class Alarm:
    """Wakes whoever waits."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something has changed."""
        self._rung.set()

    async def wait(self, seconds: float | None) -> None:
        """Until it rings, or the time is over; None: until it rings."""
        rung = self._rung
        if seconds is not None and seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await rung.wait()
        except TimeoutError:
            return
        if rung is self._rung:
            self._rung = asyncio.Event()
