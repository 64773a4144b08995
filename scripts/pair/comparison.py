"""What the turns say: a ratio, the interval of the same code beside itself, and whether anything is worse.

Intervals are those of a median by order statistics, which suppose nothing about the distribution: Le Boudec,
Performance Evaluation of Computer and Communication Systems, 2010, theorem 2.1.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LIMIT = 1.05  # what a ratio may be whatever the machine does
CONFIDENCE = 0.95
LEAST_PAIRS = 7  # with fewer than six there is no interval of the median that holds by 95 %

Interval = tuple[float, float]


@dataclass(frozen=True)
class Turn:
    """What one turn measured of one thing: both commits, the other one twice."""

    this: float
    other: float
    again: float

    @property
    def ratio(self) -> float:
        """This commit to the other."""
        return self.this / statistics.fmean((self.other, self.again))

    @property
    def same(self) -> float:
        """The other commit to itself."""
        return self.again / self.other


@dataclass(frozen=True)
class Comparison:
    """All turns of one measure of one case."""

    case: str
    measure: str
    this: float  # medians
    other: float
    ratio: float
    interval: Interval  # of the ratio
    same: Interval  # A/A
    verdict: str
    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, case: str, measure: str, turns: Sequence[Turn]) -> Comparison:
        """Of at least one turn."""
        ratios = [turn.ratio for turn in turns]
        ratio, same = statistics.median(ratios), interval([turn.same for turn in turns])
        return cls(
            case=case,
            measure=measure,
            this=statistics.median(turn.this for turn in turns),
            other=statistics.median(value for turn in turns for value in (turn.other, turn.again)),
            ratio=ratio,
            interval=interval(ratios),
            same=same,
            verdict=verdict(ratio, same),
            turns=tuple(turns),
        )

    def as_json(self) -> dict[str, Any]:
        """Every number of it."""
        turns = [{"this": turn.this, "other": [turn.other, turn.again]} for turn in self.turns]
        return {**vars(self), "turns": turns}


def interval(values: Sequence[float]) -> Interval:
    """Where their true median lies by `CONFIDENCE`, whatever their distribution; less surely below six values.

    From the k-th lowest to the k-th highest, k as large as the binomial distribution allows.
    """
    ordered, count, k = sorted(values), len(values), 1
    while 2 * sum(math.comb(count, below) for below in range(k + 1)) <= (1 - CONFIDENCE) * 2**count:
        k += 1
    return ordered[k - 1], ordered[-k]


def verdict(ratio: float, same: Interval) -> str:
    """Worse or better is what is beyond both the limit and what the same code shows beside itself."""
    if ratio > max(LIMIT, same[1]):
        return "worse"
    return "better" if ratio < min(1 / LIMIT, same[0]) else "not worse"
