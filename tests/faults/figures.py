"""Figures of the fault tests: each test adds a line of JSON to a file; `python -m tests.faults.figures FILE` makes the
table of docs/reliability.md of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD = ("fault", "tried", "survived", "lost", "counted twice", "longest wait")


@dataclass(frozen=True)
class Figures:
    """What became of a fault that was tried a number of times; `lost` and `twice` are updates."""

    fault: str
    tried: int
    survived: int
    lost: int
    twice: int
    longest_wait_s: float | None = None  # None: nobody waits


def record(fault: str, tried: int, survived: int, lost: int, twice: int, longest_wait_s: float | None = None) -> None:
    """Add a line to the file that FAULT_FIGURES names; nothing without it."""
    if (file := os.environ.get("FAULT_FIGURES")) is not None:
        waited = None if longest_wait_s is None else round(longest_wait_s, 2)
        line = json.dumps(asdict(Figures(fault, tried, survived, lost, twice, waited)))
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


def load(file: Path) -> list[Figures]:
    """The figures of a file, those of one fault added up, in the order in which the faults first appear."""
    found: dict[str, Figures] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        one = Figures(**json.loads(line))
        found[one.fault] = _added(found[one.fault], one) if one.fault in found else one
    return list(found.values())


def _added(one: Figures, other: Figures) -> Figures:
    return Figures(
        one.fault,
        one.tried + other.tried,
        one.survived + other.survived,
        one.lost + other.lost,
        one.twice + other.twice,
        max((wait for wait in (one.longest_wait_s, other.longest_wait_s) if wait is not None), default=None),
    )


def table(figures: Iterable[Figures]) -> str:
    """The figures in Markdown."""
    rows = [HEAD, ("---", *["---:"] * 5)]
    for one in figures:
        counts = (one.tried, one.survived, one.lost, one.twice)
        wait = "" if one.longest_wait_s is None else f"{one.longest_wait_s:.1f} s"
        rows.append((one.fault, *(f"{count:,}" for count in counts), wait))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace("| --- |", "|---|").replace(" ---: |", "---:|")


if __name__ == "__main__":
    print(table(load(Path(sys.argv[1]))))
