"""Walking over many models at once, a block that fits the processor's cache at a time.

A block is a piece of one large tensor, or several small tensors together, of one dtype. Rules see it as rows, one per
model; memory is O(block), whatever the models' size and number. numpy releases the GIL in these loops, so blocks are
shared out to a few threads; each block is computed in one fixed way, so the result depends on neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .tensors import Array

S = TypeVar("S")
T = TypeVar("T")
BLOCK = 1 << 16  # elements: a float64 row is 512 KiB
THREADS = max(1, min(4, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
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
        np.copyto(row, _pieces(model, block)[0], casting="unsafe")
    else:
        np.concatenate(_pieces(model, block), out=row, casting="unsafe")


def gather_rows(models: Sequence[Sequence[Array]], block: Block, rows: Array) -> None:
    """Copy a block of each model into a row of its own, in the dtype of `rows`; what is left of a row becomes 0."""
    rest = np.zeros(rows.shape[1] - block.size, rows.dtype)
    parts = [piece for model in models for piece in (*_pieces(model, block), rest)]
    np.concatenate(parts, out=rows.reshape(-1), casting="unsafe")


def _pieces(model: Sequence[Array], block: Block) -> list[Array]:
    if block.first == block.last:
        return [model[block.first].reshape(-1)[block.start : block.stop]]
    return [array.reshape(-1) for array in model[block.first : block.last + 1]]


def scatter(row: Array, block: Block, model: Sequence[Array]) -> None:
    """Write a row into the block of a model, in the tensors' own dtype (a float64 row: see `fit_dtype`)."""
    at = 0
    for index in range(block.first, block.last + 1):
        flat = model[index].reshape(-1)
        target = flat[block.start : block.stop] if block.first == block.last else flat
        np.copyto(target, row[at : at + target.size], casting="unsafe")
        at += target.size


def fit_dtype(row: Array, dtype: np.dtype[Any]) -> None:
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


def holds(dtype: np.dtype[Any] | type[np.floating], row: Array) -> bool:
    """Whether the numbers of a float64 row are finite in a floating dtype."""
    limit = float(np.finfo(dtype).max)
    return bool(-limit <= row.min(initial=0.0) and row.max(initial=0.0) <= limit)  # NaN is the least and the largest


def empty_like(model: Sequence[Array]) -> list[Array]:
    """A model of the same dtypes and shapes, its values undefined."""
    return [np.empty(array.shape, array.dtype) for array in model]


def copy(model: Sequence[Array], out: Sequence[Array] | None = None) -> list[Array]:
    """A model of the same bits, in `out` if that is given."""
    if out is None:
        return [array.copy() for array in model]
    for target, array in zip(out, model, strict=True):
        np.copyto(target, array, casting="no")
    return list(out)


def each(found: Sequence[Block], worker: Callable[[], Callable[[Block], None]]) -> None:
    """Have every block worked on, in a few threads when there is enough of it.

    A thread calls `worker()` once for the function that it then calls with its blocks: buffers that `worker` makes are
    used again. Raises what they raise.
    """

    def do(share: Sequence[Block]) -> None:
        work = worker()
        with np.errstate(
            all="ignore"
        ):  # whoever works on blocks knows what overflows; the bytes between tensors are no values
            for block in share:
                work(block)

    threads = THREADS if len(found) >= 2 * THREADS else 1
    for _ in in_threads(do, [found[i::threads] for i in range(threads)]):
        pass


def in_threads(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What `work` makes of each item, in the order of the items; done in a few threads when there are several."""
    given = list(items)
    if len(given) < 2 or THREADS == 1:
        yield from map(work, given)
        return
    with ThreadPoolExecutor(THREADS, thread_name_prefix="aggregation") as pool:
        yield from pool.map(work, given)
