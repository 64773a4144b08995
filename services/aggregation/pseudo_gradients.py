"""A step from the model that was trained from along the updates, for rules that are no mean of the updates."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from ..weights import Array, Block, blocks, each, empty_like, gather, in_threads, scatter
from .base import View, trained
from .fedavg import mean


def step(
    views: Sequence[View], factors: Sequence[float], strides: Sequence[float], out: Sequence[Array] | None = None
) -> list[Array]:
    """Trainable floating tensors: W + sum of stride_k * (w_k - W); the others: the mean weighted by `factors` > 0.

    W is the model that was trained from. What passes the largest value of a dtype becomes that. Written into `out` if
    that is given.
    """
    parent, models = views[0].parent, [view.arrays for view in views]
    made = empty_like(models[0]) if out is None else list(out)
    moved = trained(made, views[0].trainable)
    rest = sorted(set(range(len(made))) - set(moved))
    if rest:
        mean([_only(model, rest) for model in models], factors, _only(made, rest))
    _move(_only(parent, moved), [_only(model, moved) for model in models], strides, _only(made, moved))
    return made


def squared_norms(views: Sequence[View]) -> Array:
    """Squared lengths of w_k - W over the trainable floating tensors, (updates,) of float64; too long: infinite."""
    moved = trained(views[0].arrays, views[0].trainable)
    parent, models = _only(views[0].parent, moved), [_only(view.arrays, moved) for view in views]

    def of(block: Block) -> Array:
        origin, term, found = np.empty(block.size), np.empty(block.size), np.empty(len(models))
        gather(parent, block, origin)
        with np.errstate(over="ignore"):
            for index, model in enumerate(models):
                gather(model, block, term)
                term -= origin
                found[index] = np.square(term, out=term).sum()
        return found

    total = np.zeros(len(models))
    for part in in_threads(of, blocks(parent)):
        total += part
    return total


def _only(model: Sequence[Array], indices: Sequence[int]) -> list[Array]:
    return [model[index] for index in indices]


def _move(
    parent: Sequence[Array], models: Sequence[Sequence[Array]], strides: Sequence[float], made: Sequence[Array]
) -> None:
    """Write into `made` the parent and its differences to the models, each times its stride."""
    small = 2.0 ** -np.ceil(np.log2(4 * (1 + sum(strides))))  # times this no sum overflows

    def work(block: Block) -> None:
        total = _sum(parent, models, strides, block)
        if not np.isfinite(total).all():  # of the largest float64
            total = _sum(parent, models, strides, block, small) / small
        limit = float(ml_dtypes.finfo(made[block.first].dtype).max)  # type: ignore[no-untyped-call]
        np.clip(total, -limit, limit, out=total)
        scatter(total, block, made)

    each(blocks(made), lambda: work)


def _sum(
    parent: Sequence[Array], models: Sequence[Sequence[Array]], strides: Sequence[float], block: Block, scale: float = 1
) -> Array:
    """W + sum of stride_k * (w_k - W) of a block, all values times `scale`."""
    origin, term, total = np.empty(block.size), np.empty(block.size), np.zeros(block.size)
    gather(parent, block, origin)
    origin *= scale
    for model, stride in zip(models, strides, strict=True):
        gather(model, block, term)
        if scale != 1:
            term *= scale
        term -= origin
        term *= stride
        total += term
    total += origin
    return total
