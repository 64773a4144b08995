"""Zeroing of updates: one that is far out counts as no change at all, with the weight that it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from .. import messages as m
from ..parameters import Checked
from .base import Quantile, QuantileRate, bound, toward_quantile
from .difference import Difference


@dataclass(frozen=True)
class ZeroOutliers(Checked):
    """An update with a value too far from its model's changes nothing (Andrew et al. 2021, arXiv:1905.03871).

    The bound is `norm`, or by default follows the updates, as zeroing in TensorFlow Federated does: `multiplier` times
    an estimated quantile of their L-infinity norms, plus `increment`. What is
    infinite exceeds every bound; NaN exceeds none, and is refused by the check that follows.
    """

    norm: Annotated[float | None, bound("a bound that stays; it goes with no other parameter", 0)] = None
    initial_norm: Annotated[float, bound("the quantile before the first round")] = 10.0
    quantile: Quantile = 0.98
    learning_rate: QuantileRate = 2.302585092994046  # ln 10
    multiplier: Annotated[float, bound("times the quantile is the bound")] = 2.0
    increment: Annotated[float, bound("added to that", 0)] = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        super().__post_init__()
        if self.norm is not None and replace(self, norm=None) != ZeroOutliers():
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
