"""FedStride: the mean of FedAvg, worked out over a few learners at a time (Stripelis et al., MetisFL)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ..weights import Array, Block, blocks, each, empty_like, fit_dtype, gather, scatter
from .base import State, View
from .fedavg import counted, mean, shares_of, whole_of
from .parameters import check_whole


@dataclass(frozen=True)
class FedStride:
    """Looks at the tensors of at most `stride_length` learners at a time; unset: of all, which is FedAvg.

    The additions are those of FedAvg in the same order, so the model is the same to the last bit. What it costs is
    memory: float64 sums of the model's size, where FedAvg needs a few blocks.
    """

    elementwise: ClassVar[bool] = True

    stride_length: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        if self.stride_length is not None:
            check_whole("stride_length", self.stride_length, 1)

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. Updates with factor 0 are left out."""
        models, weights = counted(views, factors)
        if self.stride_length is None or self.stride_length >= len(models):
            return mean(models, weights, out), state
        return strided_mean(models, weights, self.stride_length, out), state


def strided_mean(
    models: Sequence[Sequence[Array]], factors: Sequence[float], stride: int, out: Sequence[Array] | None = None
) -> list[Array]:
    """`fedavg.mean` of several models, of which `stride` are read before the next ones are touched."""
    made = empty_like(models[0]) if out is None else list(out)
    sums = [np.full(array.shape, -0.0) for array in made]  # -0 + x is x, to the bit
    origins = [array.copy() if array.dtype.kind in "iu" else array for array in models[0]]
    shares, whole = shares_of(factors), whole_of(factors)
    found = blocks(made)

    def adding(start: int) -> Callable[[Block], None]:
        """Adds a block of the learners from `start` on to the sums."""

        def add(block: Block) -> None:
            total, term, origin = np.empty(block.size), np.empty(block.size), np.zeros(block.size)
            kind = made[block.first].dtype.kind
            gather(sums, block, total)
            if kind in "iu":
                gather(origins, block, origin)
            weights = whole if kind in "iub" else shares
            for model, weight in zip(models[start : start + stride], weights[start : start + stride], strict=True):
                gather(model, block, term)
                if kind in "iu":
                    term -= origin
                term *= weight
                total += term
            scatter(total, block, sums)

        return add

    def finish(block: Block) -> None:
        total, origin = np.empty(block.size), np.empty(block.size)
        dtype = made[block.first].dtype
        gather(sums, block, total)
        if dtype.kind in "iub":
            total /= math.fsum(whole)
        if dtype.kind in "iu":
            gather(origins, block, origin)
            total += origin
        fit_dtype(total, dtype)
        scatter(total, block, made)

    for start in range(0, len(models), stride):
        each(found, partial(adding, start))
    each(found, lambda: finish)
    return made
