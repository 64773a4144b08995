"""Squared Euclidean distances between all pairs of updates, over the trainable floating tensors.

|a - b|² = a·a + b·b - 2 a·b, where a and b are the differences from the model that was trained from: they are small, so
that little cancels, and a wild update spoils no distance but its own. Products are float64 sums over extents of
`EXTENT` elements, which are added up in order within spans of `SPAN` blocks, and the spans in order: fixed numbers, so
that the result does not depend on threads. Memory: TILE x updates float64 values for each thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..weights import Array, Block, blocks, gather_rows, in_threads
from .base import View, trained

EXTENT = 256  # elements
TILE = 16 * EXTENT  # elements of a block
SPAN = 64  # blocks
GROUP = 32  # updates: OpenBLAS works out products of matrices so small in the calling thread, and so in one order


def squared_distances(views: Sequence[View]) -> Array:
    """Symmetric, (updates, updates), float64; what overflows is infinite. Views without a parent: about 0."""
    products = scalar_products(views)
    squares = np.diagonal(products)
    with np.errstate(over="ignore", invalid="ignore"):
        distances: Array = squares[:, None] + squares - 2 * products
    distances[~np.isfinite(distances)] = np.inf
    return np.maximum(distances, 0.0, out=distances)


def scalar_products(views: Sequence[View]) -> Array:
    """Scalar products of the updates' differences from the model that was trained from: symmetric, float64.

    Of all pairs: (updates, updates). What overflows is infinite or NaN.
    """
    measured = trained(views[0].arrays, views[0].trainable)
    models = [[view.arrays[i] for i in measured] for view in views]
    centre = [views[0].parent[i] for i in measured] if views[0].parent else []
    found = blocks(models[0], TILE)
    spans = [found[at : at + SPAN] for at in range(0, len(found), SPAN)]
    products = np.zeros((len(views), len(views)))
    with np.errstate(over="ignore", invalid="ignore"):
        for part in in_threads(lambda span: _products(models, centre, span), spans):
            products += part
    upper = np.triu(products)
    return np.asarray(upper + np.triu(upper, 1).T)


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
