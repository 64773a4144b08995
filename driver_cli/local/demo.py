"""`metis demo`: a whole federation as processes of this machine, on real data that the package carries."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.config import TerminationSignals

from ..race import race
from ..session import Connection, DriverSession
from ..show import Display, words
from .processes import Children, LocalController, children, start_controller

LEARNER = "learner_agent.digits:digits_learner"
JOIN_S = 120.0  # how long the learners may take to start and enrol
END_S = 10.0  # how long controller and learners may take to end when told to


@dataclass(frozen=True)
class Demo:
    """What to demonstrate; `keep` leaves the federation up until it is interrupted."""

    learners: int = 3
    rounds: int = 5
    port: int = 0
    keep: bool = False
    out: Path = Path("results.json")

    async def run(self, display: Display) -> dict[str, Any]:
        """The results of the run. Raises ChildDied when one of the processes ends before its time."""
        with tempfile.TemporaryDirectory(prefix="metis-demo-") as folder:
            async with children(Path(folder)) as started:
                display.note(f"starting a controller and {words.plural(self.learners, 'learner')} on this machine")
                controller = await start_controller(started, "InMemory", self.port)
                display.note(f"the page of the federation: {controller.url}/  logs: {folder}")
                for index in range(self.learners):
                    self._start_learner(started, controller, index)
                results = await race(self._session(controller).drive(display), started.any_died())
                await self._end(started, controller, display)
                return results

    def _start_learner(self, started: Children, controller: LocalController, index: int) -> None:
        name = f"learner-{index}"
        started.start(
            name,
            "learner_agent",
            *("--controller", controller.url, "--learner", LEARNER, "--name", name),
            METIS_SHARD=str(index),
            METIS_NUM_SHARDS=str(self.learners),
            METIS_STATE_DIR=str(started.folder / f"state-{index}"),
        )

    def _session(self, controller: LocalController) -> DriverSession:
        return DriverSession(
            Connection(controller.url),  # no token of the environment: this controller is open
            self.learners,
            TerminationSignals(federation_rounds=self.rounds),
            config={"name": "demo"},
            out=self.out,
            shutdown=not self.keep,
            learners_timeout_s=JOIN_S,
        )

    async def _end(self, started: Children, controller: LocalController, display: Display) -> None:
        if not self.keep:
            await started.ended(END_S)
            return
        print(f"the federation stays up at {controller.url}/ until Ctrl-C", flush=True)
        try:
            await started.any_died()
        except asyncio.CancelledError:
            print("ending the controller and the learners", flush=True)
