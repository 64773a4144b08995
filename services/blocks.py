"""Walking over many models at once, a block that fits the processor's cache at a time.

A block is a piece of one large tensor, or several small tensors together, of one dtype. Rules see it as float64 rows,
one per model; memory is O(block), whatever the models' size and number. numpy releases the GIL in these loops, so
blocks are shared out to a few threads; each block is computed in one fixed way, so the result depends on neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 1 << 16  # elements: a float64 row is 512 KiB
THREADS = max(1, min(4, os.cpu_count() or 1))


@dataclass(frozen=True)
class Block:
    """Elements `start` to `stop` (of the flattened tensors) of the tensors `first` to `last`, which are of one dtype.

    More than one tensor: all of each.
    """

    first: int
    last: int
    start: int
    stop: int
    size: int  # elements


def blocks(model: Sequence[Array], size: int = BLOCK) -> list[Block]:
    """The blocks of a model, in order; small neighbours of one dtype share a block."""
    found: list[Block] = []
    index = 0
    while index < len(model):
        tensor = model[index]
        if tensor.size > size:
            edges = range(0, tensor.size, size)
            found += [Block(index, index, at, min(at + size, tensor.size), min(size, tensor.size - at)) for at in edges]
            index += 1
            continue
        last, total = index, 0
        while last < len(model) and model[last].dtype == tensor.dtype and total + model[last].size <= size:
            total += model[last].size
            last += 1
        if total:
            found.append(Block(index, last - 1, 0, model[last - 1].size, total))
        index = last
    return found


def gather(model: Sequence[Array], block: Block, row: Array) -> None:
    """Copy a block of a model into a float64 row of `block.size` elements."""
    if block.first == block.last:
        np.copyto(row, model[block.first].reshape(-1)[block.start : block.stop], casting="unsafe")
        return
    parts = [array.reshape(-1) for array in model[block.first : block.last + 1]]
    np.concatenate(parts, out=row, casting="unsafe")


def scatter(row: Array, block: Block, model: Sequence[Array]) -> None:
    """Write a float64 row into the block of a model, in the tensors' own dtype (see `settle`)."""
    at = 0
    for index in range(block.first, block.last + 1):
        flat = model[index].reshape(-1)
        target = flat[block.start : block.stop] if block.first == block.last else flat
        np.copyto(target, row[at : at + target.size], casting="unsafe")
        at += target.size


def settle(row: Array, dtype: np.dtype[Any]) -> None:
    """Make a float64 row ready for its dtype, in place: whole numbers rounded half to even, within the dtype's range.

    A bool becomes 1 above one half, else 0. Floats are held within the dtype's finite range (a weighted mean may
    pass the largest float64 by rounding).
    """
    if dtype.kind == "b":
        np.greater(row, 0.5, out=row)
    elif dtype.kind in "iu":
        np.rint(row, out=row)
        limits = np.iinfo(dtype)
        low, high = float(limits.min), float(limits.max)
        if high > limits.max:  # 2^63 and 2^64 are floats, but not of the dtype
            high = float(np.nextafter(high, 0))
        np.clip(row, low, high, out=row)
    elif dtype == np.float64:
        limit = np.finfo(np.float64).max
        np.clip(row, -limit, limit, out=row)


def empty_like(model: Sequence[Array]) -> list[Array]:
    """A model of the same dtypes and shapes, its values undefined."""
    return [np.empty(array.shape, array.dtype) for array in model]


def each(found: Sequence[Block], work: Callable[[Block], None]) -> None:
    """Do `work` for every block, in a few threads when there is enough of it; raises what `work` raises."""
    if len(found) < 2 * THREADS or THREADS == 1:
        for block in found:
            work(block)
        return

    def do(share: Sequence[Block]) -> None:
        for block in share:
            work(block)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="aggregation") as pool:
        list(pool.map(do, [found[i::THREADS] for i in range(THREADS)]))
