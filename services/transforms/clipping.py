"""Clipping of updates: none moves the model further than a bound, whoever sent it.

The bound is on the L2 norm of the update's difference from the model that it was trained from. What is stored is
rounded to the tensors' own dtypes, so in float16 and bfloat16 the norm may come out a little off the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from .. import messages as m
from ..parameters import Checked
from .base import Quantile, QuantileRate, bound, toward_quantile
from .difference import Difference


@dataclass(frozen=True)
class ClipNorm(Checked):
    """An update moves the model no further than a bound that stays (McMahan et al. 2018, arXiv:1710.06963).

    w' = W + (w - W) min(1, norm / |w - W|). Within it an update is left as it is, to the bit.
    """

    norm: Annotated[float, bound("L2 norm of the update's difference from its model at most")]

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
class AdaptiveClipNorm(Checked):
    """The same with a bound that follows a quantile of the updates' norms (Andrew et al. 2021, arXiv:1905.03871).

    "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, here without noise; defaults of the paper.
    """

    initial_norm: Annotated[float, bound("the bound in the first round")] = 0.1
    quantile: Quantile = 0.5
    learning_rate: QuantileRate = 0.2

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


WITHIN = 1 - 1e-14  # more than the rounding of a norm


def _clip(name: str, difference: Difference, bound: float) -> m.Transformed:
    norm = difference.norm()
    if norm <= bound:
        return m.Transformed(name=name, norm=norm, bound=bound, did="kept")
    difference.scale(bound / norm)
    if difference.norm() > bound:
        difference.scale(WITHIN)
    return m.Transformed(name=name, norm=norm, bound=bound, did="clipped")
