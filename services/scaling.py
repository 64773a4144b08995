"""Scaling factors: how much an update counts, read from its metadata (raw counts; every rule normalises)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import InvalidWeight

LARGEST = 2**53  # counts up to here are exact in float64


class Scaler(Protocol):
    """Gives the factor of one update."""

    def factor(self, metadata: Mapping[str, Any]) -> float:
        """A finite count between 0 and 2^53; 0 counts nothing. Raises InvalidWeight, naming the key."""
        ...


@dataclass(frozen=True)
class FromMetadata:
    """The count that the learner reports under `key`."""

    key: str

    def factor(self, metadata: Mapping[str, Any]) -> float:
        """See Scaler.factor."""
        return count(metadata, self.key)


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


SCALERS: dict[str, Callable[[], Scaler]] = {
    "NumTrainingExamples": lambda: FromMetadata("num_training_examples"),
    "NumCompletedBatches": lambda: FromMetadata("num_completed_batches"),
    "NumParticipants": NumParticipants,
}
