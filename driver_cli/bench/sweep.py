"""All that one call of `metis bench` measures, case after case, or reads back; then it is shown.

Every option is checked before anything is measured; what is measured is kept when a later case fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.errors import InvalidConfig

from . import plot, printout
from .durability import Stores
from .idle import Waiters
from .machine import describe, load
from .measurements import BenchReport, Case, Durability, Idle
from .sizes import Size, counts, sizes
from .stress import Stress

MODEL_STORES = ("InMemory", "OnDisk")
MOST_LEARNERS = 1000


@dataclass(frozen=True)
class Sweep:
    """The cases, and where the report is kept after each."""

    cases: Sequence[Stress]
    waiters: Waiters | None = None
    out: Path | None = None
    stores: Sequence[Stores] = ()

    async def run(self, tell: Callable[[str], None]) -> BenchReport:
        """Measure; `tell` gets a line before and after each case. Raises InvalidConfig before anything is measured."""
        for case in self.cases:
            case.check_memory()
        load_before = load()
        done: list[Case] = []
        idle: Idle | None = None
        durable: list[Durability] = []

        def report() -> BenchReport:
            made = BenchReport(machine=describe(load_before), cases=done, idle=idle, durability=durable)
            if self.out:
                made.save(self.out)
            return made

        for case in self.cases:
            tell(f"{case.learners} learners, {case.size.params:,} parameters, {case.model_store}")
            done.append(await case.run())
            tell(f"  {_told(done[-1])}")
            report()
        for compared in self.stores:
            tell(f"what durability costs {compared.learners} learners with {compared.size.params:,} parameters")
            durable.append(await compared.run())
            report()
        if self.waiters:
            tell(f"{self.waiters.polls} learners that wait")
            idle = await self.waiters.run()
        return report()


@dataclass(frozen=True)
class SweepOptions:
    """The options of `metis bench`, as they were typed."""

    params: str
    learners: str
    rounds: int
    model_store: str
    slots: int | None
    floor: bool
    durability: bool
    idle: int | None
    idle_seconds: float
    out: Path | None

    def sweep(self) -> Sweep:
        """What to measure; raises InvalidConfig."""
        if self.model_store not in MODEL_STORES:
            raise InvalidConfig(f"--model-store {self.model_store}: it is {' or '.join(MODEL_STORES)}")
        if self.out is not None and not self.out.absolute().parent.is_dir():
            raise InvalidConfig(f"--out {self.out}: there is no folder {self.out.parent}")
        if self.idle is not None:
            return Sweep([], Waiters(self.idle, self.idle_seconds, model_store=self.model_store), self.out)
        if self.durability:
            return Sweep([], None, self.out, [Stores(*pair, self.rounds) for pair in self._pairs()])
        cases = [
            Stress(size, learners, self.rounds, self.model_store, self.slots, self.floor)
            for size, learners in self._pairs()
        ]
        return Sweep(cases, None, self.out)

    def _pairs(self) -> list[tuple[Size, int]]:
        return [(size, count) for size in sizes(self.params) for count in counts(self.learners, MOST_LEARNERS)]


async def measure(options: SweepOptions, picture: Path | None) -> BenchReport:
    """Check every option, then measure; says on standard error what is being measured."""
    sweep = options.sweep()
    if picture:
        plot.check(picture)
        if not sweep.cases:
            raise InvalidConfig("--plot draws rounds beside the floor; --idle and --durability measure none")
    return await sweep.run(lambda text: print(text, file=sys.stderr, flush=True))


def saved(files: Sequence[Path]) -> list[BenchReport]:
    """What `--out` saved; raises InvalidConfig."""
    return [BenchReport.load(file) for file in files]


def draw(reports: Sequence[BenchReport], file: Path) -> None:
    """Write the picture; raises InvalidConfig."""
    plot.check(file).write_text(plot.svg(reports), encoding="utf-8")


def shown(reports: Sequence[BenchReport], as_json: bool, as_markdown: bool) -> str:
    """The reports as text, as JSON (one document, or a list of them) or as Markdown."""
    if as_json:
        documents = [json.loads(one.as_json()) for one in reports]
        return json.dumps(documents[0] if len(documents) == 1 else documents, indent=2)
    return printout.markdown(reports) if as_markdown else printout.text(reports)


def _told(case: Case) -> str:
    """A case in a line, so that it is known also when what follows fails."""
    ratio = "" if case.ratio is None else f", {case.ratio:.2f} times the floor"
    return f"{case.round_s:.3f} s a round{ratio}"
