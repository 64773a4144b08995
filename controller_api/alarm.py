"""Waiting for a time to come, or for something to change before."""

from __future__ import annotations

import asyncio


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
