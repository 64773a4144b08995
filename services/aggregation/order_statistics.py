"""Order statistics of every coordinate: the mean of what remains without the smallest and the largest values.

The values of a block stand as rows, one per update, and a sorting network (K. E. Batcher 1968; Knuth, The Art of
Computer Programming 3, 5.2.2 M) puts whole rows in order by elementwise minima and maxima; comparisons that the
remaining rows do not depend on are left out. Floats are compared as integers of the same order, so that -0 comes before
0 whatever the processor's minimum does. Sums go from the smallest value to the largest: the result depends neither on
the order of the updates nor on blocks and threads. Memory: `SPACE` and three float64 rows for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..weights import Array, Block, blocks, each, empty_like, fit_dtype, gather_rows, scatter
from .whole_numbers import WholeSum

SPACE = 1 << 23  # bytes of all rows of a block
ROW = 1 << 14  # elements of a row at most: longer ones leave the cache, shorter ones are all overhead


class Step(NamedTuple):
    """Puts the smaller values of rows `low` and `high` into `low`, the larger into `high`, or only one of these."""

    low: int
    high: int
    keep_low: bool
    keep_high: bool


def middle_mean(
    models: Sequence[Sequence[Array]], cut: int, out: Sequence[Array] | None = None, space: int = SPACE
) -> list[Array]:
    """Per coordinate, the mean of the values without the `cut` smallest and the `cut` largest ones.

    A single value that remains is kept to the bit. Integers are rounded half to even, a bool is True when more than
    half of what remains is. Written into `out` if that is given.
    """

    def combine(kept: Sequence[Array]) -> Array:
        return kept[0] if len(kept) == 1 else _mean(kept)

    return by_order(models, cut, len(models) - cut, combine, out, space)


def by_order(
    models: Sequence[Sequence[Array]],
    first: int,
    stop: int,
    combine: Callable[[Sequence[Array]], Array],
    out: Sequence[Array] | None = None,
    space: int = SPACE,
) -> list[Array]:
    """Per coordinate, what `combine` makes of the values from the place `first` up to `stop` in ascending order.

    It is given rows of a block, in the tensors' dtype, and returns one of them or a row of float64, of whole numbers
    and bools one of theirs. Written into `out` if that is given.
    """
    made = empty_like(models[0]) if out is None else list(out)
    count = len(models)
    steps = network(count, first, stop)
    widest = max((array.itemsize for array in made), default=1)
    row = min(ROW, max(64, space // (count * widest)))

    def worker() -> Callable[[Block], None]:
        held = np.empty((count + 1) * row * widest, np.uint8)

        def work(block: Block) -> None:
            dtype = made[block.first].dtype
            rows = held[: (count + 1) * block.size * dtype.itemsize].view(dtype).reshape(count + 1, block.size)
            gather_rows(models, block, rows[:count])
            kept = _sorted(rows, steps, slice(first, stop))
            found = combine(kept)
            if dtype.kind not in "iub" and not any(found is one for one in kept):
                fit_dtype(found, dtype)
            scatter(found, block, made)

        return work

    each(blocks(made, row), worker)
    return made


@lru_cache(maxsize=4)
def network(count: int, first: int, stop: int) -> tuple[Step, ...]:
    """Steps after which the rows `first` to `stop` of `count` rows are those of the sorted order."""
    needed, steps = set(range(first, stop)), list[Step]()
    for low, high in reversed(list(_merge_exchange(count))):
        if low in needed or high in needed:
            steps.append(Step(low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(steps))


def _merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    """Pairs of rows to compare, after which all are in order."""
    size = 1
    while size < count:
        step = size
        while step:
            for start in range(step % size, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        yield low, low + step
            step //= 2
        size *= 2


def _sorted(rows: Array, steps: Sequence[Step], kept: slice) -> list[Array]:
    """The rows `kept` of the rows but the last, which is spare, after `steps`; the memory is used up."""
    floating = rows.dtype.kind not in "iub"  # bfloat16's kind is V
    keys = rows.view(f"i{rows.itemsize}") if floating else rows
    ordered, spare = list(keys[:-1]), keys[-1]
    if floating:
        for row in ordered:
            _turn(row, spare)
    for low, high, keep_low, keep_high in steps:
        one, other = ordered[low], ordered[high]
        if keep_low and keep_high:
            np.minimum(one, other, out=spare)
            np.maximum(one, other, out=other)
            ordered[low], spare = spare, one
        elif keep_low:
            np.minimum(one, other, out=one)
        else:
            np.maximum(one, other, out=other)
    if floating:
        for row in ordered[kept]:
            _turn(row, spare)
    return [row.view(rows.dtype) for row in ordered[kept]]


def _turn(bits: Array, spare: Array) -> None:
    """Bits of floats into integers of the same order, or back: a negative number's bits but the sign are inverted."""
    np.right_shift(bits, 8 * bits.itemsize - 1, out=spare)
    np.bitwise_and(spare, np.iinfo(bits.dtype).max, out=spare)
    np.bitwise_xor(bits, spare, out=bits)


def _mean(ordered: Sequence[Array]) -> Array:
    """Mean of rows in ascending order, in float64, of whole numbers in their dtype.

    It is the middle value plus the mean difference from it, so that what all agree on stays.
    """
    if ordered[0].dtype.kind in "iub":
        total = WholeSum(ordered[0].dtype, [1] * len(ordered))
        for row in ordered:
            total.add(row)
        return total.mean()
    mean, middle, term = np.empty((3, ordered[0].size))
    np.copyto(middle, ordered[len(ordered) // 2], casting="unsafe")
    mean[:] = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for row in ordered:
            np.copyto(term, row, casting="unsafe")
            term -= middle
            mean += term
        mean /= len(ordered)
        mean += middle
    if ordered[0].dtype == np.float64 and not np.isfinite(mean).all():  # differences of the largest values overflowed
        wrong = ~np.isfinite(mean)
        mean[wrong] = sum(row[wrong] / len(ordered) for row in ordered)
    return mean
