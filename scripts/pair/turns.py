"""The turns: every case once for this commit and twice for the other, in changing order: all see one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .cases import Case, Measure
from .comparison import Comparison, Turn
from .worktrees import Failed, Tree

THIS, OTHER, AGAIN = "this", "other", "again"
ORDERS = (  # each stands twice in each place; a drift of the machine from first to last cancels
    (THIS, OTHER, AGAIN),
    (AGAIN, THIS, OTHER),
    (OTHER, AGAIN, THIS),
    (THIS, AGAIN, OTHER),
    (OTHER, THIS, AGAIN),
    (AGAIN, OTHER, THIS),
)


def measure(
    trees: tuple[Tree, Tree], cases: Sequence[Case], pairs: int, tell: Callable[[str], None]
) -> tuple[list[Comparison], list[str]]:
    """All turns; returns what can be compared, and what one of the commits does not tell. Raises Failed."""
    bench = {THIS: trees[0].bench, OTHER: trees[1].bench, AGAIN: trees[1].bench}
    reports: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    started, steps = time.monotonic(), pairs * len(cases)
    for turn in range(pairs):
        for index, case in enumerate(cases):
            done, left = turn * len(cases) + index, ""
            if turn:
                left = f", about {minutes((time.monotonic() - started) * (steps - done) / done)} left"
            tell(f"pair {turn + 1} of {pairs}: {case.name}{left}")
            reports[case.name].append({name: bench[name](case.options) for name in ORDERS[turn % len(ORDERS)]})
    compared, untold = [], []
    for case in cases:
        for one in case.measures:
            turns = told_turns(one, reports[case.name])
            if len(turns) == pairs:
                compared.append(Comparison.of(case.name, one.name, turns))
            else:
                untold.append(f"{case.name}, {one.name}")
    if not compared:
        raise Failed(f"nothing that both commits tell: {'; '.join(untold)}")
    return compared, untold


def told_turns(one: Measure, reports: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns in which every report tells it."""
    found = []
    for turn in reports:
        this, other, again = (one.read(turn[name]) for name in (THIS, OTHER, AGAIN))
        if this is not None and other is not None and again is not None:
            found.append(Turn(this, other, again))
    return found


def minutes(seconds: float) -> str:
    """For a reader who waits."""
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
