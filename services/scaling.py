"""Scaling factors: how much an update counts, read from its metadata (raw counts; every rule normalises).

A count is what its learner says. So that one that lies, or errs, does not weigh more than all others together, a factor
is held within a multiple of the others' median once there are enough of them to compare it with (`cap_factors`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import InvalidWeight

LARGEST = 2**53  # counts up to here are exact in float64
COMPARED = 3  # of fewer factors nobody can tell which one is out of place


class Scaler(Protocol):
    """Gives the factor of one update."""

    def factor(self, metadata: Mapping[str, Any]) -> float:
        """A finite count between 0 and 2^53; 0 counts nothing. Raises InvalidWeight, naming the key."""
        ...


@dataclass(frozen=True)
class NumTrainingExamples:
    """The rows that a learner trained on, `num_training_examples` (McMahan et al. 2017, arXiv:1602.05629)."""

    def factor(self, metadata: Mapping[str, Any]) -> float:
        """See Scaler.factor."""
        return count(metadata, "num_training_examples")


@dataclass(frozen=True)
class NumCompletedBatches:
    """The batches that a learner did, `num_completed_batches` (Stripelis et al. 2023, arXiv:2311.00334)."""

    def factor(self, metadata: Mapping[str, Any]) -> float:
        """See Scaler.factor."""
        return count(metadata, "num_completed_batches")


@dataclass(frozen=True)
class NumParticipants:
    """Every update counts the same."""

    def factor(self, metadata: Mapping[str, Any]) -> float:
        """Always 1."""
        return 1.0


def count(metadata: Mapping[str, Any], key: str, instead: str = 'choose scaling_factor "NumParticipants"') -> float:
    """The count `metadata[key]`; raises InvalidWeight when it is missing, no number, or out of range.

    `instead` is what can be done by a user whose learners cannot tell it.
    """
    if metadata.get(key) is None:
        raise InvalidWeight(f"the update's metadata has no {key!r}: return it from train(), or {instead}", key=key)
    value = metadata[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidWeight(f"metadata[{key!r}] must be a finite count, got {value!r}", key=key, got=str(value))
    if not 0 <= value <= LARGEST:
        raise InvalidWeight(f"metadata[{key!r}] must lie between 0 and 2^53, got {value!r}", key=key, got=value)
    return float(value)


def cap_factors(factors: Sequence[float], cap: float | None, beside: Iterable[float] = ()) -> list[float]:
    """The factors as they count: each at most `cap` times the median of the others that are above 0.

    `beside` are factors of updates that count without being among these: a rule's state holds them. Of fewer than three
    in all, and without a cap, each counts as it is.
    """
    if cap is None:
        return list(factors)
    known = [*factors, *beside]
    if len(known) < COMPARED:
        return list(factors)
    ordered = [factor for factor in known if factor > 0]
    if not ordered or max(ordered) <= cap * min(ordered):  # nearly always: no median is below the least
        return list(factors)
    ordered.sort()
    return [_capped(factor, cap, ordered) for factor in factors]


def _capped(factor: float, cap: float, ordered: Sequence[float]) -> float:
    """`factor`, one of `ordered` unless it is 0, within `cap` times the median of the rest."""
    rest = len(ordered) - 1
    if factor <= 0 or rest < 1:
        return factor
    own = bisect_left(ordered, factor)
    low, high = [ordered[at if at < own else at + 1] for at in ((rest - 1) // 2, rest // 2)]
    return min(factor, cap * ((low + high) / 2))


SCALERS: dict[str, Callable[[], Scaler]] = {
    "NumTrainingExamples": NumTrainingExamples,
    "NumCompletedBatches": NumCompletedBatches,
    "NumParticipants": NumParticipants,
}
