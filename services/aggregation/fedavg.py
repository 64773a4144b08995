"""FedAvg: the mean of the updates, weighted by the scaling factors (McMahan et al. 2017, arXiv:1602.05629).

q_k = p_k / Σp first, then W = Σ q_k·w_k, so that finite inputs cannot overflow and one contribution comes back
bit-equal. Sums are float64, in the order of the views, a block that fits the processor's cache at a time. What all
agree on stays, and a mean lies between the smallest and the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import AggregationFailed
from ..weights import Array, Block, blocks, copy, each, empty_like, gather, scatter
from .base import Arrivals, State, View
from .whole_numbers import WholeSum, whole


@dataclass(frozen=True)
class FedAvg:
    """The mean weighted by the scaling factors (McMahan et al. 2017, arXiv:1602.05629).

    Integers are rounded half to even, a bool is the weighted majority and a tie is False.
    """

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
    sums = sums_of(factors)

    def average(block: Block) -> None:
        total = sums(block, made[block.first].dtype)
        for model in models:
            total.add(model)
        scatter(total.mean(), block, made)

    each(blocks(made), lambda: average)
    return made


class BlockSum(Protocol):
    """A weighted sum of a block of models."""

    def add(self, model: Sequence[Array]) -> None:
        """One more model, whose weight is the next."""
        ...

    def mean(self) -> Array:
        """The sum divided by that of the weights; a row that the block's dtype holds."""
        ...


def sums_of(factors: Sequence[float]) -> Callable[[Block, np.dtype[Any]], BlockSum]:
    """Makes the sum of a block for models that count so much, in their order."""
    shares, numbers = shares_of(factors), whole(factors)

    def make(block: Block, dtype: np.dtype[Any]) -> BlockSum:
        if dtype.kind in "iub":
            return _Whole(block, dtype, numbers)
        return _Doubles(block, shares) if dtype == np.float64 else _Shorts(block, shares)

    return make


class _Shorts:
    """Of floats that a float64 sum tells more of than they hold."""

    def __init__(self, block: Block, shares: Sequence[float]) -> None:
        self._block, self._shares = block, iter(shares)
        self._total: Array | None = None

    def add(self, model: Sequence[Array]) -> None:
        term = np.empty(self._block.size)
        gather(model, self._block, term)
        term *= next(self._shares)
        if self._total is None:
            self._total = term
        else:
            self._total += term

    def mean(self) -> Array:
        assert self._total is not None
        return self._total


class _Doubles(_Shorts):
    """Of float64, whose sum may come to lie beside what all agree on: held between the smallest and largest value."""

    def __init__(self, block: Block, shares: Sequence[float]) -> None:
        super().__init__(block, shares)
        self._least, self._most = np.full(block.size, np.inf), np.full(block.size, -np.inf)

    def add(self, model: Sequence[Array]) -> None:
        row = np.empty(self._block.size)
        gather(model, self._block, row)
        np.minimum(self._least, row, out=self._least)
        np.maximum(self._most, row, out=self._most)
        super().add(model)

    def mean(self) -> Array:
        return np.clip(super().mean(), self._least, self._most)


class _Whole:
    def __init__(self, block: Block, dtype: np.dtype[Any], weights: Sequence[int]) -> None:
        self._block, self._sum = block, WholeSum(dtype, weights)
        self._row = np.empty(block.size, dtype)

    def add(self, model: Sequence[Array]) -> None:
        gather(model, self._block, self._row)
        self._sum.add(self._row)

    def mean(self) -> Array:
        return self._sum.mean()


def shares_of(factors: Sequence[float]) -> list[float]:
    """The factors divided by their sum."""
    total = math.fsum(factors)
    return [factor / total for factor in factors]
