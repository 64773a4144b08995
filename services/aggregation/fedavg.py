"""FedAvg: the mean of the updates, weighted by the scaling factors (McMahan et al. 2017, arXiv:1602.05629).

q_k = p_k / Σp first, then W = Σ q_k·w_k, so that finite inputs cannot overflow and one contribution comes back
bit-equal. Sums are float64, in the order of the views, a block that fits the processor's cache at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import AggregationFailed
from ..weights import Array, Block, blocks, copy, each, empty_like, fit_dtype, gather, scatter
from .base import Arrivals, State, View


@dataclass(frozen=True)
class FedAvg:
    """The weighted mean. Integers are rounded half to even, a bool is the weighted majority and a tie is False."""

    elementwise: ClassVar[bool] = True
    arrivals: ClassVar[Arrivals] = Arrivals(everybody=True)

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. Updates with factor 0 are left out."""
        models, weights = counted(views, factors)
        return mean(models, weights, out), state


def counted(views: Sequence[View], factors: Sequence[float]) -> tuple[list[Sequence[Array]], list[float]]:
    """The models whose factor is above 0, and these factors; raises AggregationFailed when there is none."""
    kept = [(view.arrays, factor) for view, factor in zip(views, factors, strict=True) if factor > 0]
    if not kept:
        raise AggregationFailed("no update has a scaling factor above 0: there is nothing to average")
    return [arrays for arrays, _ in kept], [factor for _, factor in kept]


def mean(
    models: Sequence[Sequence[Array]], factors: Sequence[float], out: Sequence[Array] | None = None
) -> list[Array]:
    """Weighted mean of models of the same dtypes and shapes, which it keeps; `factors` > 0, of any scale.

    It is written into `out` if that is given.
    """
    if len(models) == 1:
        return copy(models[0], out)
    made = empty_like(models[0]) if out is None else list(out)
    shares, whole = shares_of(factors), whole_of(factors)

    def average(block: Block) -> None:
        total, term = np.empty(block.size), np.empty(block.size)
        dtype = made[block.first].dtype
        gather(models[0], block, total)
        if dtype.kind == "f" or dtype.kind == "V":  # V: bfloat16
            _weighted_sum(models, shares, block, total, term)
        else:
            _exact_mean(models, whole, block, total, term, around_first=dtype.kind != "b")
        fit_dtype(total, dtype)
        scatter(total, block, made)

    each(blocks(made), lambda: average)
    return made


def _weighted_sum(
    models: Sequence[Sequence[Array]], shares: Sequence[float], block: Block, total: Array, term: Array
) -> None:
    """`total` holds the first model's block; it becomes the sum of all, each times its share."""
    total *= shares[0]
    for model, share in zip(models[1:], shares[1:], strict=True):
        gather(model, block, term)
        term *= share
        total += term


def _exact_mean(
    models: Sequence[Sequence[Array]],
    whole: Sequence[float],
    block: Block,
    total: Array,
    term: Array,
    around_first: bool,
) -> None:
    """Sums of whole numbers are exact, so the division rounds once and ties stay ties.

    `around_first`: sums of differences from the first model stay small, so what all agree on comes back up to 2^53.
    """
    origin = total.copy() if around_first else None
    if origin is not None:
        total[:] = 0.0
    else:
        total *= whole[0]
    for model, factor in zip(models[1:], whole[1:], strict=True):
        gather(model, block, term)
        if origin is not None:
            term -= origin
        term *= factor
        total += term
    total /= math.fsum(whole)
    if origin is not None:
        total += origin


def shares_of(factors: Sequence[float]) -> list[float]:
    """The factors divided by their sum."""
    total = math.fsum(factors)
    return [factor / total for factor in factors]


def whole_of(factors: Sequence[float]) -> list[float]:
    """The factors without their common divisor."""
    if not all(float(factor).is_integer() for factor in factors):
        return [float(factor) for factor in factors]
    common = math.gcd(*(int(factor) for factor in factors))
    return [float(int(factor) // common) for factor in factors]
