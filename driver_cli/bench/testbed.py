"""What the bench measures: a controller, learners in other processes, and one run that is advanced by hand."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from services import messages as m
from services.errors import FederationError
from services.rest import Client

from ..local import Child, Children, LocalController, start_controller
from ..race import race
from .measurements import Cpu
from .sizes import Size

READY_S = 300.0  # how long the learners may take to be there and to give the initial weights
ROUND_S = 600.0  # a round that takes longer is broken
LOOK_S = (0.005, 0.25)  # the shortest and the longest pause between two looks at a round


def spread(learners: int) -> list[range]:
    """Numbers of the learners of each process: as many processes as there are cores, for each learner has its own."""
    processes = min(learners, os.cpu_count() or 1)
    return [range(learners * i // processes, learners * (i + 1) // processes) for i in range(processes)]


@dataclass
class Testbed:
    """A run whose rounds are started one by one, `rounds` of them in all. Use it in `async with`."""

    started: Children
    size: Size
    learners: int
    rounds: int
    model_store: str
    slots: int | None
    fsync: bool = False
    cpu_s: list[Cpu] = field(default_factory=list)  # of each round so far
    _expected_s: float = 0.05

    async def __aenter__(self) -> Self:
        """Start the processes and the run, and wait until it is ready for the first round."""
        environment = {"METIS_LINEAGE_LENGTH": "1", "METIS_FSYNC": str(self.fsync)}
        if self.slots is not None:
            environment["METIS_UPLOAD_SLOTS"] = str(self.slots)
        self.controller: LocalController = await start_controller(
            self.started, self.model_store, environment=environment
        )
        self._learners = [self._start_learners(places) for places in spread(self.learners)]
        self.client = Client(self.controller.url)
        self.run = await self.client.start_run(
            {
                "name": "bench",
                "advance": "manual",
                "min_learners": self.learners,
                "scaling_factor": "NumParticipants",
                "schedule": {"join_deadline_s": READY_S, "round_deadline_s": ROUND_S},
                "termination": {"federation_rounds": self.rounds},
            }
        )
        await self._until_over(READY_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; whoever gave `started` ends the processes."""
        await self.client.close()

    def _start_learners(self, places: range) -> Child:
        return self.started.start(
            f"learners-{places.start}",
            "learner_agent.synthetic",
            *("--controller", self.controller.url, "--learners", str(len(places)), "--first", str(places.start)),
            *("--params", str(self.size.asked_of_learners)),
        )

    async def round(self) -> float:
        """Do the next round; seconds until it was seen to be over."""
        before, start = self._cpu(), time.perf_counter()
        self.run = await self.client.next_round(self.run.id, len(self.cpu_s) + 1)
        await self._until_over(ROUND_S)
        taken_s = time.perf_counter() - start
        self._expected_s = 0.8 * taken_s
        self.cpu_s.append(before.until(self._cpu()))
        return taken_s

    async def results(self) -> list[m.Round]:
        """The rounds so far."""
        return await self.client.rounds(self.run.id)

    async def _until_over(self, limit_s: float) -> None:
        """Until the round (or what comes before the first) is over.

        Looks when four fifths of what the round before took are over (all of it, and no round could be seen to be
        faster than the slowest before it), then seldom: an event stream, or looking often, would take time from what
        is measured.
        """

        async def look() -> None:
            await asyncio.sleep(self._expected_s)
            pause_s = min(max(self._expected_s / 4, LOOK_S[0]), LOOK_S[1])
            while True:
                self.run = await self.client.run(self.run.id)
                if self.run.state in m.TERMINAL or (self.run.state == "waiting" and self.run.model is not None):
                    return
                await asyncio.sleep(pause_s)

        try:
            async with asyncio.timeout(limit_s):
                await race(look(), self.started.any_died())
        except TimeoutError as error:
            waiting = self.run.waiting_for or self.run.state
            raise FederationError(f"the bench waited {limit_s:g} s in vain: {waiting}") from error
        if self.run.state in ("failed", "stopped"):
            raise FederationError(f"the run of the bench {self.run.state}: {self.run.reason}")

    def _cpu(self) -> Cpu:
        return Cpu.of(self.controller.process.pid, *(one.pid for one in self._learners))
