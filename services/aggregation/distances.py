"""Squared Euclidean distances between all pairs of updates, over the trainable floating tensors.

|a - b|² = a·a + b·b - 2 a·b, where a and b are the differences from the model that was trained from: they are small, so
that little cancels, and a wild update spoils no distance but its own. Where much cancels (all have gone far the same
way) the differences themselves are squared. Products are float64 sums over extents of `EXTENT` elements, which are
added up in order within spans of `SPAN` blocks, and the spans in order: fixed numbers, so that the result does not
depend on threads. Memory: TILE x updates float64 values for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..weights import Array, Block, blocks, empty_like, gather_rows, in_threads
from .base import View, trained
from .order_statistics import middle_mean

EXTENT = 256  # elements
TILE = 16 * EXTENT  # elements of a block
SPAN = 64  # blocks
BLIND = 1e-6  # of the squared lengths: a squared distance below that has lost half its digits
GROUP = 32  # updates: OpenBLAS works out products of matrices so small in the calling thread, and so in one order


def squared_distances(views: Sequence[View]) -> Array:
    """Symmetric, (updates, updates), float64; what overflows is infinite."""
    models, centre = _measured(views)
    return _distances(models, _products_about(models, centre))


def scalar_products(views: Sequence[View]) -> Array:
    """Scalar products of the updates' differences from a point in their midst: (updates, updates), symmetric, float64.

    The point is the model that was trained from, or an update of which most others are near where they have all gone
    far from that. What overflows is infinite or NaN.
    """
    models, centre = _measured(views)
    products = _products_about(models, centre)
    if not _blind(products):
        return products
    middle = int(np.argmin(np.median(_distances(models, products), axis=1)))
    return _products_about(models, models[middle])


def _measured(views: Sequence[View]) -> tuple[list[list[Array]], list[Array]]:
    """The tensors of each update that distances look at, and of the model that was trained from."""
    indices = trained(views[0].arrays, views[0].trainable)
    parent = [views[0].parent[i] for i in indices] if views[0].parent else []
    return [[view.arrays[i] for i in indices] for view in views], parent


def _products_about(models: Sequence[Sequence[Array]], centre: Sequence[Array]) -> Array:
    return _in_spans(models, lambda span: _products(models, centre, span))


def _blind(products: Array) -> list[list[int]]:
    """Pairs whose distance the products do not tell, since nearly all of them cancels."""
    squares = np.diagonal(products)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = squares[:, None] + squares
        found: list[list[int]] = np.argwhere(np.triu(lengths - 2 * products < BLIND * lengths, 1)).tolist()
    return found


def _distances(models: Sequence[Sequence[Array]], products: Array) -> Array:
    squares = np.diagonal(products)
    with np.errstate(over="ignore", invalid="ignore"):
        distances: Array = squares[:, None] + squares - 2 * products
    if blind := _blind(products):
        exact = _in_spans(models, lambda span: _differences(models, blind, span))
        one, other = np.transpose(blind)
        distances[one, other] = distances[other, one] = exact[one, other]
    distances[~np.isfinite(distances)] = np.inf
    np.fill_diagonal(distances, 0.0)
    return np.maximum(distances, 0.0, out=distances)


def robustly(
    views: Sequence[View],
    combine: Callable[[list[list[Array]], list[Array]], object],
    out: Sequence[Array] | None = None,
) -> list[Array]:
    """A model of what `combine` puts into its second argument of the tensors that distances look at, one list for each
    update, and of the median of all updates for every other tensor.

    An update whose weights look honest may hold anything in those (BatchNorm's statistics), and no distance would tell.
    Written into `out` if that is given.
    """
    made = empty_like(views[0].arrays) if out is None else list(out)
    measured = trained(made, views[0].trainable)
    rest = sorted(set(range(len(made))) - set(measured))
    if measured:
        combine([[view.arrays[i] for i in measured] for view in views], [made[i] for i in measured])
    if rest:
        models = [[view.arrays[i] for i in rest] for view in views]
        middle_mean(models, (len(views) - 1) // 2, [made[i] for i in rest])
    return made


def _in_spans(models: Sequence[Sequence[Array]], work: Callable[[Sequence[Block]], Array]) -> Array:
    """The sum of what `work` makes of each span of blocks, above the diagonal, as a symmetric matrix."""
    found = blocks(models[0], TILE)
    total = np.zeros((len(models), len(models)))
    with np.errstate(over="ignore", invalid="ignore"):
        for part in in_threads(work, [found[at : at + SPAN] for at in range(0, len(found), SPAN)]):
            total += part
    upper = np.triu(total)
    return np.asarray(upper + np.triu(upper, 1).T)


def _differences(models: Sequence[Sequence[Array]], pairs: Sequence[Sequence[int]], span: Sequence[Block]) -> Array:
    """Squared distances of these pairs over the blocks of a span."""
    held, row = np.empty(len(models) * TILE), np.empty(TILE)
    total = np.zeros((len(models), len(models)))
    with np.errstate(over="ignore", invalid="ignore"):
        for block in span:
            rows, difference = held[: len(models) * block.size].reshape(len(models), -1), row[: block.size]
            gather_rows(models, block, rows)
            for one, other in pairs:
                np.subtract(rows[one], rows[other], out=difference)
                total[one, other] += np.square(difference, out=difference).sum()
    return total


def _products(models: Sequence[Sequence[Array]], centre: Sequence[Array], span: Sequence[Block]) -> Array:
    """Scalar products of all pairs over the blocks of a span; below the diagonal whatever."""
    count = len(models)
    held, middle = np.empty(count * TILE), np.empty((1, TILE))
    total = np.zeros((count, count))
    with np.errstate(over="ignore", invalid="ignore"):
        for block in span:
            width = -(-block.size // EXTENT) * EXTENT
            rows = held[: count * width].reshape(count, width)
            gather_rows(models, block, rows)
            if centre:
                gather_rows([centre], block, middle[:, :width])
                rows -= middle[:, :width]
            extents = rows.reshape(count, -1, EXTENT).transpose(1, 0, 2)  # (extents, updates, elements)
            for top in range(0, count, GROUP):
                for left in range(top, count, GROUP):
                    one, other = extents[:, top : top + GROUP], extents[:, left : left + GROUP]
                    part = np.matmul(one, other.transpose(0, 2, 1)).sum(axis=0)
                    total[top : top + GROUP, left : left + GROUP] += part
    return total
