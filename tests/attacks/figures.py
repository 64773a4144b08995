"""Figures of the sieges: each adds a line of JSON to a file; `python -m tests.attacks.figures FILE` makes the table of
docs/security.md of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD = ("attack", "rounds", "a round", "beside a dummy", "ratio", "longest", "honest learners lost", "memory", "folder")


@dataclass(frozen=True)
class Figures:
    """Of one attack. Rounds are those between its 35th and its 65th second, `longest_s` is of any since it began;
    growth, in percent, is between these moments."""

    attack: str
    rounds: int
    round_s: float
    beside_dummy_s: float
    longest_s: float
    lost: int
    memory_percent: float
    folder_percent: float

    @property
    def ratio(self) -> float:
        """How much longer a round took for the attack."""
        return self.round_s / self.beside_dummy_s


def write(file: Path, one: Figures) -> None:
    """Add a line."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(one)) + "\n")


def load(file: Path) -> list[Figures]:
    """The figures of a file."""
    return [Figures(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def table(figures: Iterable[Figures]) -> str:
    """The figures in Markdown."""
    rows = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    for one in figures:
        times = (f"{one.round_s:.2f} s", f"{one.beside_dummy_s:.2f} s", f"{one.ratio:.2f}", f"{one.longest_s:.2f} s")
        growth = (f"{one.memory_percent:+.1f} %", f"{one.folder_percent:+.1f} %")
        rows.append((one.attack, str(one.rounds), *times, str(one.lost), *growth))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace("| --- |", "|---|").replace(" ---: |", "---:|")


if __name__ == "__main__":
    print(table(load(Path(sys.argv[1]))))
