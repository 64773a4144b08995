"""All that one call of `metis bench` measures, case after case; what is measured is kept when a later case fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .durability import Stores
from .idle import Waiters
from .machine import describe, load
from .measurements import Case, Durability, Idle, Report
from .stress import Stress


@dataclass(frozen=True)
class Sweep:
    """The cases, and where the report is kept after each."""

    cases: Sequence[Stress]
    waiters: Waiters | None = None
    out: Path | None = None
    stores: Sequence[Stores] = ()

    async def run(self, tell: Callable[[str], None]) -> Report:
        """Measure; `tell` gets a line before and after each case. Raises InvalidConfig before anything is measured."""
        for case in self.cases:
            case.check_memory()
        load_before = load()
        done: list[Case] = []
        idle: Idle | None = None
        durable: list[Durability] = []

        def report() -> Report:
            made = Report(machine=describe(load_before), cases=done, idle=idle, durability=durable)
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


def _told(case: Case) -> str:
    """A case in a line, so that it is known also when what follows fails."""
    ratio = "" if case.ratio is None else f", {case.ratio:.2f} times the floor"
    return f"{case.round_s:.3f} s a round{ratio}"
