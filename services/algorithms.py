"""Algorithms of which learners do their part: what travels beside the model, and what the controller makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from .weights import Array, Block, Tensor, blocks, each, gather, scatter


class Algorithm(Protocol):
    """Names what learners are given beside the model, and send back with their updates.

    Each of `extras` is a group of tensors in the form of the model's trainable floating ones. The controller keeps one
    group of it, zeros at first. A train task names that as an input of this name; the update answers with a difference
    to it in its `extra` of the same name; after each aggregation the differences are added (`add_differences`).
    """

    @property
    def extras(self) -> Sequence[str]:
        """Their names."""
        ...


@dataclass(frozen=True)
class ModelOnly:
    """Nothing but the model travels."""

    extras: ClassVar[Sequence[str]] = ()


@dataclass(frozen=True)
class SCAFFOLD:
    """SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378): learners correct their drift by control variates.

    The input `control` is the controller's c; the update's extra `control` is c_i⁺ - c_i, by which a learner has
    changed its own.
    """

    extras: ClassVar[Sequence[str]] = ("control",)


ALGORITHMS: dict[str, Callable[..., Algorithm]] = {"None": ModelOnly, "SCAFFOLD": SCAFFOLD}


def zeros(model: Sequence[Tensor]) -> list[Tensor]:
    """A group of extra tensors to begin with: the model's trainable floating ones, all 0 (and no memory yet)."""
    moved = [one for one in model if one.trainable and one.dtype.kind not in "iub"]  # bfloat16: V
    return [Tensor(one.name, np.zeros(one.shape, one.dtype)) for one in moved]


def add_differences(
    current: Sequence[Array], differences: Sequence[Sequence[Array]], learners: int, out: Sequence[Array]
) -> None:
    """Write into `out` the `current` group plus (|S| / N) · mean of the differences of S of the N `learners`.

    Sums are float64, in the order given, a block at a time. SCAFFOLD, algorithm 1, line 17.
    """

    def add(block: Block) -> None:
        total, term = np.zeros(block.size), np.empty(block.size)
        for one in differences:
            gather(one, block, term)
            total += term
        total /= max(learners, len(differences))
        gather(current, block, term)
        total += term
        scatter(total, block, out)

    each(blocks(out), lambda: add)
