"""Algorithms of which learners do their part: what travels beside the model, and what the controller makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from .weights import Array, Block, Tensor, blocks, each, gather, scatter


class Algorithm(Protocol):
    """Names what learners are given beside the model, and send back with their updates.

    Each of `extras` is a group of tensors in the form of the model's trainable floating ones. A learner has one of its
    own, and the controller the mean of them, weighted as the model is; all are zeros at first. A train task names the
    mean as an input of this name; the update answers with the difference by which the learner's own has changed, in its
    `extra` of the same name. After each aggregation the mean follows (`add_differences`), and so does what the
    controller knows of each learner's own, for when it leaves.
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
    """Learners correct their drift by control variates (Karimireddy et al. 2020, arXiv:1910.06378).

    The input `control` is the controller's c; the update's extra `control` is c_i⁺ - c_i, by which a learner has
    changed its own.
    """

    extras: ClassVar[Sequence[str]] = ("control",)


ALGORITHMS: dict[str, Callable[..., Algorithm]] = {"None": ModelOnly, "SCAFFOLD": SCAFFOLD}


def zeros(model: Sequence[Tensor]) -> list[Tensor]:
    """A group of extra tensors to begin with: the model's trainable floating ones, all 0 (and no memory yet)."""
    moved = [one for one in model if one.trainable and one.dtype.kind not in "iub"]  # bfloat16: V
    return [Tensor(one.name, np.zeros(one.shape, one.dtype)) for one in moved]


def own_key(name: str, blob: str) -> str:
    """Where a store keeps what a learner holds of this extra after the update of this key."""
    return f"{name}-{blob}"


def add_differences(
    current: Sequence[Array],
    terms: Sequence[tuple[Sequence[Array], float]],
    before: float,
    after: float,
    out: Sequence[Array],
) -> None:
    """Write into `out` the `current` group times before / after, plus the sum of the terms' arrays, each times its
    weight, over `after`.

    With the differences of S learners, weights of 1 and N learners before and after this is line 17 of SCAFFOLD's
    algorithm 1. Sums are float64, in the order given, a block at a time.
    """

    def add(block: Block) -> None:
        total, term = np.zeros(block.size), np.empty(block.size)
        for arrays, weight in terms:
            gather(arrays, block, term)
            term *= weight
            total += term
        total /= after
        gather(current, block, term)
        term *= before / after
        total += term
        scatter(total, block, out)

    each(blocks(out), lambda: add)
