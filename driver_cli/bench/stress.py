"""One case of the stress test: rounds of a federation and of the floor in turns, so that both see the same machine."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services import messages as m
from services.errors import InvalidConfig

from ..local import Child, Children, children
from . import counters
from .channel import Program, start_program
from .counters import Peaks, megabytes
from .machine import load
from .measurements import Case, Cpu, Floor, Memory, Spread
from .sizes import Size
from .testbed import Testbed

WARM_UP = 1  # rounds that do not count, of each: connections are opened, memory is touched for the first time
BLOCK = 3  # rounds in a row before it is the other's turn
LONG_S = 0.2  # a round that takes longer is a turn of its own
HELD = 1  # models that a learner holds: the one it received becomes the one it sends
SPARE = 0.9  # of the free memory may be taken
FLOOR_MODULE = "driver_cli.bench.floor"


def turns(rounds: int, round_s: float) -> list[int]:
    """How many rounds each turn has, when a round takes about `round_s` seconds."""
    block = 1 if round_s > LONG_S else BLOCK
    return [min(block, rounds - done) for done in range(0, rounds, block)]


@dataclass(frozen=True)
class Stress:
    """What to measure. Raises InvalidConfig when the memory that is free would not do."""

    size: Size
    learners: int
    rounds: int = 5
    model_store: str = "InMemory"
    slots: int | None = None
    with_floor: bool = True

    def check_memory(self) -> None:
        """Refuse what would push other programs of the machine out of memory."""
        model = self.size.nbytes
        parts = {"the learners": HELD * self.learners * model, "the controller": (self.slots or 8) * model}
        if self.model_store == "InMemory":
            parts["the controller"] += self.learners * model
        if self.with_floor:
            parts["the floor"] = self.learners * model
        free, needed = counters.free_bytes(), sum(parts.values())
        if free is not None and needed > SPARE * free:
            shares = ", ".join(f"{name} {share / 1e9:.1f}" for name, share in parts.items())
            raise InvalidConfig(
                f"{self.learners} learners with {self.size.params:,} parameters need about {needed / 1e9:.1f} GB"
                f" ({shares}); {free / 1e9:.1f} GB are free: take fewer learners, --model-store OnDisk or --no-floor",
                needed=needed,
                free=free,
            )

    async def run(self) -> Case:
        """Measure. Raises ChildDied when one of the processes ends, FederationError when the run fails."""
        load_before = load()[0]
        with tempfile.TemporaryDirectory(prefix="metis-bench-") as folder:
            async with children(Path(folder)) as started:
                return await self._measure(started, load_before)

    async def _measure(self, started: Children, load_before: float) -> Case:
        floor = await _start_floor(started, self.size, self.learners) if self.with_floor else None
        rounds = WARM_UP + self.rounds
        async with Testbed(started, self.size, self.learners, rounds, self.model_store, self.slots) as testbed:
            async with _watched(testbed.controller.process) as peaks:
                await self._turns(floor, testbed)
            found = (await testbed.results())[WARM_UP:]
        timings = _timings(found)
        return Case(
            size=self.size.name,
            params=self.size.params,
            learners=self.learners,
            model_store=self.model_store,
            slots=self.slots,
            rounds=self.rounds,
            timings_ms={name: Spread.of(values) for name, values in timings.items()},
            rounds_ms=timings,
            cpu_s=Cpu.mean(testbed.cpu_s[WARM_UP:]),
            memory=Memory(
                anonymous_mb=megabytes(peaks.anonymous),
                shared_mb=megabytes(peaks.shared),
                resident_mb=megabytes(peaks.resident),
            ),
            bytes_down=found[-1].bytes.down,
            bytes_up=found[-1].bytes.up,
            floor=floor.measured(WARM_UP, 3 * self.learners * self.size.nbytes) if floor else None,
            load=(load_before, load()[0]),
        )

    async def _turns(self, floor: FloorRounds | None, testbed: Testbed) -> None:
        """The warm-up, then the rounds that count, in turns."""
        for _ in range(WARM_UP):
            if floor:
                await floor.round()
            took_s = await testbed.round()
        for turn in turns(self.rounds, took_s):
            if floor:
                for _ in range(turn):
                    await floor.round()
            for _ in range(turn):
                await testbed.round()


@dataclass
class FloorRounds:
    """The processes of the floor, and what their rounds took."""

    server: Program
    learners: Child
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[Cpu] = field(default_factory=list)

    async def round(self) -> None:
        """Do one."""
        before = self._cpu()
        self.seconds.append((await self.server.ask("round"))["seconds"])
        self.cpu_s.append(before.until(self._cpu()))

    def measured(self, warm_up: int, moved: int) -> Floor:
        """What came out."""
        counted = [round(value, 6) for value in self.seconds[warm_up:]]
        return Floor(round_s=Spread.of(counted), rounds_s=counted, cpu_s=Cpu.mean(self.cpu_s[warm_up:]), bytes=moved)

    def _cpu(self) -> Cpu:
        return Cpu.of(self.server.process.pid, self.learners.pid)


async def _start_floor(started: Children, size: Size, learners: int) -> FloorRounds:
    arguments = ("--params", str(size.params), "--learners", str(learners))
    server = await start_program(started, "floor", FLOOR_MODULE, *arguments)
    port = (await server.ask("port"))["port"]
    others = started.start("floor-learners", FLOOR_MODULE, "--join", str(port), *arguments)
    await server.ask("accept")
    return FloorRounds(server, others)


@contextlib.asynccontextmanager
async def _watched(process: Child) -> AsyncIterator[Peaks]:
    peaks = Peaks(process.pid)
    watching = asyncio.create_task(peaks.watch())
    try:
        yield peaks
    finally:
        watching.cancel()
        peaks.look()


def _timings(rounds: Sequence[m.Round]) -> dict[str, list[float]]:
    """Each timing's values over the rounds, in the contract's order."""
    told = [one.timings_ms.model_dump() for one in rounds]
    return {name: [one[name] for one in told if one[name] is not None] for name in m.Timings.model_fields}
