"""The end of the federation: its process ends when every learner that is here has heard of it, or after a grace.

Those that leave once they have heard of it are still answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.federation import Federation

from .waiting import Alarm

GRACE_S = 15.0  # how long agents have to hear that the federation is over
LEAVE_S = 1.0  # and to leave, if they do, after the last has heard of it


class Shutdown:
    """Of one federation; `stopped` is set when the process may end."""

    def __init__(self, federation: Federation, stopped: asyncio.Event) -> None:
        self._federation = federation
        self._stopped = stopped
        self._told: set[str] = set()
        self._alarm = Alarm()

    def tell(self, learner_id: str) -> None:
        """A learner hears of it now."""
        self._told.add(learner_id)
        self._alarm.ring()

    async def wait(self, clock: Callable[[], float]) -> None:
        """Until the process may end; say so. `clock` gives seconds, those without the process's own stalls."""
        deadline, all_told = clock() + GRACE_S, False
        while clock() < deadline and not self._stopped.is_set():
            here = {one.id for one in self._federation.roster if one.state == "active"}
            if not here:
                break
            if not all_told and not here - self._told:
                deadline, all_told = clock() + LEAVE_S, True
            await self._alarm.wait(min(0.2 if all_told else 1.0, deadline - clock()))
        self._stopped.set()
