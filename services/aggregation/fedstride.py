"""FedStride: the mean of FedAvg, worked out over a few learners at a time (Stripelis et al., MetisFL)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from ..parameters import Checked, whole
from ..weights import Array, Block, blocks, each, empty_like, scatter
from .base import State, View
from .fedavg import counted, mean, sums_of


@dataclass(frozen=True)
class FedStride(Checked):
    """FedAvg that reads the tensors of some learners at a time (Stripelis et al. 2023, arXiv:2311.00334).

    The additions are those of FedAvg in the same order, so the model is the same to the last bit. What it costs is
    memory: float64 sums of the model's size, where FedAvg needs a few blocks (three of float64, two of whole numbers).
    """

    elementwise: ClassVar[bool] = True

    stride_length: Annotated[int | None, whole(1, meaning="learners at a time; unset: all")] = None

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
    make, found = sums_of(factors), blocks(made)
    sums = {block: make(block, made[block.first].dtype) for block in found}

    def adding(start: int) -> Callable[[Block], None]:
        """Adds a block of the learners from `start` on to the sums."""

        def add(block: Block) -> None:
            for model in models[start : start + stride]:
                sums[block].add(model)

        return add

    for start in range(0, len(models), stride):
        each(found, partial(adding, start))
    each(found, lambda: lambda block: scatter(sums[block].mean(), block, made))
    return made
