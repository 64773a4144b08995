"""Zeroing of updates: one that is far out counts as no change at all, with the weight that it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .. import messages as m
from .base import SMALLEST, check_number, toward_quantile
from .difference import Difference


@dataclass(frozen=True)
class ZeroOutliers:
    """An update with a value that differs from the model by more than a bound becomes the model.

    The bound is `norm`, or by default follows the updates, as zeroing in TensorFlow Federated does: `multiplier` times
    an estimated quantile of their L-infinity norms (Andrew et al. 2021, arXiv:1905.03871), plus `increment`. What is
    infinite exceeds every bound; NaN exceeds none, and is refused by the check that follows.
    """

    norm: float | None = None
    initial_norm: float = 10.0
    quantile: float = 0.98
    learning_rate: float = math.log(10)
    multiplier: float = 2.0
    increment: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        check_number("initial_norm", self.initial_norm, SMALLEST)
        check_number("quantile", self.quantile, 0.0, 1.0)
        check_number("learning_rate", self.learning_rate, 0.0, 100.0)
        check_number("multiplier", self.multiplier, SMALLEST)
        check_number("increment", self.increment, 0.0)
        if self.norm is not None:
            check_number("norm", self.norm, 0.0)
            if replace(self, norm=None) != ZeroOutliers():
                raise ValueError("norm is a bound that stays: it goes with no other parameter")

    @property
    def first_bound(self) -> float:
        """See Transform.first_bound: the estimate of the quantile, when the bound follows that."""
        return float(self.initial_norm if self.norm is None else self.norm)

    def apply(self, difference: Difference, bound: float) -> m.Transformed:
        """See Transform.apply."""
        limit = self.multiplier * bound + self.increment if self.norm is None else bound
        norm = difference.largest()
        if far := norm > limit:
            difference.drop()
        known = norm if math.isfinite(norm) else None
        return m.Transformed(name="ZeroOutliers", norm=known, bound=limit, did="zeroed" if far else "kept")

    def next_bound(self, bound: float, norms: Sequence[float]) -> float:
        """See Transform.next_bound."""
        return bound if self.norm is not None else toward_quantile(bound, norms, self.quantile, self.learning_rate)
