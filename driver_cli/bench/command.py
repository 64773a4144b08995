"""What `metis bench` does with its options: check them all, measure or read back, show."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.errors import InvalidConfig

from . import plot
from . import printout as tables
from .durability import Stores
from .idle import Waiters
from .measurements import Report
from .sizes import Size, counts, sizes
from .stress import Stress
from .sweep import Sweep

MODEL_STORES = ("InMemory", "OnDisk")
MOST_LEARNERS = 1000


@dataclass(frozen=True)
class Asked:
    """The options, as they were typed."""

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


async def measure(asked: Asked, picture: Path | None) -> Report:
    """Check every option, then measure; says on standard error what is being measured."""
    sweep = asked.sweep()
    if picture:
        plot.check(picture)
        if not sweep.cases:
            raise InvalidConfig("--plot draws rounds beside the floor; --idle and --durability measure none")
    return await sweep.run(lambda text: print(text, file=sys.stderr, flush=True))


def saved(files: Sequence[Path]) -> list[Report]:
    """What `--out` saved; raises InvalidConfig."""
    return [Report.load(file) for file in files]


def draw(reports: Sequence[Report], file: Path) -> None:
    """Write the picture; raises InvalidConfig."""
    plot.check(file).write_text(plot.svg(reports), encoding="utf-8")


def shown(reports: Sequence[Report], as_json: bool, as_markdown: bool) -> str:
    """The reports as text, as JSON (one document, or a list of them) or as Markdown."""
    if as_json:
        documents = [json.loads(one.as_json()) for one in reports]
        return json.dumps(documents[0] if len(documents) == 1 else documents, indent=2)
    return tables.markdown(reports) if as_markdown else tables.text(reports)
