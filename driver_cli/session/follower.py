"""Following a run to its end: by the controller's events, and by asking where events do not suffice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from services import messages as m
from services.errors import UnknownRun
from services.rest import Client

from ..race import race
from ..show import LEARNER_EVENTS, View

CHECK_S = 2.0  # at least so often the controller is asked: its words of what it waits for count seconds
FRESH_S = 1.0  # while things happen, what no event tells (what is waited for) is asked for as often as this

Events = Callable[[int], AsyncIterator[m.Event]]  # the log after an event's number, for ever


class Follower:
    """Keeps `view` up to date until `until()`; `tell` hears each event after the view took it in."""

    def __init__(
        self, client: Client, events: Events, view: View, tell: Callable[[m.Event], None], until: Callable[[], bool]
    ) -> None:
        self._client, self._events, self._view, self._tell, self._until = client, events, view, tell, until
        self._over = asyncio.Event()
        self._stale = asyncio.Event()
        self._asked = 0.0

    async def follow(self) -> None:
        """Follow it to there.

        Raises Unreachable when the controller does not answer for the client's patience, UnknownRun when it has
        forgotten the run.
        """
        self._look()
        await race(_wait(self._over), self._read(), self._check())

    async def _read(self) -> None:
        async for event in self._events(self._view.last_event):
            self._view.last_event = event.id
            if self._view.concerns(event):
                self._view.apply(event)
                self._tell(event)
                self._look()
            self._ask_soon(event)

    def _ask_soon(self, event: m.Event) -> None:
        """Have the controller asked: at once for what events leave out, else once a second."""
        waits = event.kind == "run-state" and event.data.get("state") == "waiting"
        if waits or event.kind in LEARNER_EVENTS or time.monotonic() - self._asked > FRESH_S:
            self._stale.set()

    async def _check(self) -> None:
        self._stale.set()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._stale.wait()
            self._stale.clear()
            self._asked = time.monotonic()
            status = await self._client.federation()
            run = status.run
            if run is None or run.id != self._view.run.id:
                run = await self._own_run()
            self._view.refresh(status.learners, run)
            self._look()

    async def _own_run(self) -> m.Run:
        try:
            return await self._client.run(self._view.run.id)
        except UnknownRun as error:
            raise UnknownRun(
                f"the controller at {self._view.url} no longer knows run {self._view.run.id}: it was restarted without"
                " its data folder",
                run=self._view.run.id,
            ) from error

    def _look(self) -> None:
        if self._until():
            self._over.set()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
