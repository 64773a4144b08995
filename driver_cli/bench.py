"""`metis bench`: how long a round takes when the learners train nothing, and what it costs the controller."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services import messages as m
from services.config import TerminationSignals
from services.errors import FederationError

from .connection import Connection
from .display import Silent
from .local import LocalController, start_controller
from .process import Children, children, cpu_seconds, peak_memory_mb
from .race import race
from .report import columns
from .session import DriverSession

LIMIT_S = 600.0  # a bench that takes longer is broken
WARM_UP = 1  # rounds that do not count: connections are opened, code runs for the first time


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    min: float
    max: float


@dataclass(frozen=True)
class Measured:
    """What a bench measured. Times in milliseconds a round; `controller` covers the process from start to end."""

    learners: int
    params: int
    rounds: int
    model_store: str
    timings_ms: dict[str, Spread]
    controller: dict[str, float | None]
    wall_s: float

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def as_text(self) -> str:
        """For people."""
        rows = [
            [name, *(f"{value:.2f}" for value in asdict(spread).values())] for name, spread in self.timings_ms.items()
        ]
        known = ", ".join(f"{name} {value:.4g}" for name, value in self.controller.items() if value is not None)
        return "\n".join(
            [
                f"{self.learners} learners, {self.params} parameters, {self.rounds} rounds, {self.model_store}",
                columns([["ms per round", "median", "min", "max"], *rows]),
                f"controller: {known}",
            ]
        )


@dataclass(frozen=True)
class Bench:
    """What to measure."""

    learners: int = 10
    params: int = 100_000
    rounds: int = 10
    model_store: str = "InMemory"

    async def run(self) -> Measured:
        """Measure. Raises ChildDied when one of the processes ends, FederationError when the run fails."""
        try:
            async with asyncio.timeout(LIMIT_S):
                with tempfile.TemporaryDirectory(prefix="metis-bench-") as folder:
                    return await self._measure(Path(folder))
        except TimeoutError as error:
            raise FederationError(f"the bench was not done after {LIMIT_S:g} s; try fewer rounds") from error

    async def _measure(self, folder: Path) -> Measured:
        async with children(folder) as started:
            controller = await start_controller(started, self.model_store)
            self._start_learners(started, controller)
            begun = time.perf_counter()
            results = await race(self._session(controller).drive(Silent()), started.any_died())
            wall_s = time.perf_counter() - begun
            peak = peak_memory_mb(controller.process)
        timings = self._timings(m.Results.model_validate(results))
        cost = {"cpu_s": cpu_seconds(controller.process), "peak_memory_mb": peak}
        return Measured(self.learners, self.params, self.rounds, self.model_store, timings, cost, round(wall_s, 3))

    def _start_learners(self, started: Children, controller: LocalController) -> None:
        started.start(
            "learners",
            "learner_agent.synthetic",
            *("--controller", controller.url, "--learners", str(self.learners), "--params", str(self.params)),
        )

    def _session(self, controller: LocalController) -> DriverSession:
        return DriverSession(
            Connection(controller.url),
            self.learners,
            TerminationSignals(federation_rounds=self.rounds + WARM_UP),
            config={"name": "bench", "aggregation_rule": "FedAvg", "scaling_factor": "NumParticipants"},
            out=None,
            learners_timeout_s=LIMIT_S / 2,
        )

    def _timings(self, results: m.Results) -> dict[str, Spread]:
        if results.run.state != "completed":
            raise FederationError(f"the run of the bench {results.run.state}: {results.run.reason}")
        counted = [one.timings_ms.model_dump() for one in results.rounds[WARM_UP:]]
        return {name: spread for name in m.Timings.model_fields if (spread := _spread(counted, name)) is not None}


def _spread(rounds: Sequence[Mapping[str, float | None]], name: str) -> Spread | None:
    values = [value for timings in rounds if (value := timings[name]) is not None]
    return Spread(statistics.median(values), min(values), max(values)) if values else None
