"""Clipping of updates: none moves the model further than a bound, whoever sent it.

The bound is on the L2 norm of the update's difference from the model that it was trained from. What is stored is
rounded to the tensors' own dtypes, so in float16 and bfloat16 the norm may come out a little off the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import messages as m
from .base import SMALLEST, check_number, toward_quantile
from .difference import Difference


@dataclass(frozen=True)
class ClipNorm:
    """A bound that stays: w' = W + (w - W) min(1, norm / |w - W|). Within it an update is left as it is, to the bit."""

    norm: float

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        check_number("norm", self.norm, SMALLEST)

    @property
    def first_bound(self) -> float:
        """See Transform.first_bound."""
        return float(self.norm)

    def apply(self, difference: Difference, bound: float) -> m.Transformed:
        """See Transform.apply."""
        return _clip("ClipNorm", difference, bound)

    def next_bound(self, bound: float, norms: Sequence[float]) -> float:
        """See Transform.next_bound: the same."""
        return bound


@dataclass(frozen=True)
class AdaptiveClipNorm:
    """A bound that follows a quantile of the updates' norms, here without noise (Andrew et al. 2021).

    "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021 (arXiv:1905.03871); defaults of the paper.
    """

    initial_norm: float = 0.1
    quantile: float = 0.5
    learning_rate: float = 0.2

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        check_number("initial_norm", self.initial_norm, SMALLEST)
        check_number("quantile", self.quantile, 0.0, 1.0)
        check_number("learning_rate", self.learning_rate, 0.0, 100.0)

    @property
    def first_bound(self) -> float:
        """See Transform.first_bound."""
        return float(self.initial_norm)

    def apply(self, difference: Difference, bound: float) -> m.Transformed:
        """See Transform.apply."""
        return _clip("AdaptiveClipNorm", difference, bound)

    def next_bound(self, bound: float, norms: Sequence[float]) -> float:
        """See Transform.next_bound."""
        return toward_quantile(bound, norms, self.quantile, self.learning_rate)


def _clip(name: str, difference: Difference, bound: float) -> m.Transformed:
    norm = difference.norm()
    if norm <= bound:
        return m.Transformed(name=name, norm=norm, bound=bound, did="kept")
    difference.scale(bound / norm)
    return m.Transformed(name=name, norm=norm, bound=bound, did="clipped")
