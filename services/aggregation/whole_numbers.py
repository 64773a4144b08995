"""Weighted means of whole numbers of any size: exact, rounded half to even. A bool is the majority, a tie is False.

A float64 holds whole numbers up to 2^53, an int64 tensor more. So they are summed as integers: in two halves of 32
bits, and where weights are so large that these would overflow, as Python's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from ..weights import Array

HALF = 32  # bits
LIGHT = 1 << 29  # sum of the weights up to which the sums of halves fit in 64 bits


def whole(factors: Sequence[float]) -> list[int]:
    """Whole numbers without a common divisor that are to each other as the factors, exactly."""
    exact = [Fraction(factor) for factor in factors]
    common = math.lcm(*(one.denominator for one in exact))
    numbers = [int(one * common) for one in exact]
    divisor = math.gcd(*numbers) or 1
    return [number // divisor for number in numbers]


class WholeSum:
    """A weighted sum of rows of a dtype, to which each is added once."""

    def __init__(self, dtype: np.dtype[Any], weights: Sequence[int]) -> None:
        """`weights` are those of all rows to come, in their order."""
        self._dtype, self._weights, self._total = dtype, iter(weights), sum(weights)
        self._whole = dtype.kind == "b" or self._total > LIGHT  # rather than in two halves
        self._type: Any = np.int64 if dtype.kind == "b" and self._total < 1 << 62 else object
        self._sums: list[Any] = [0, 0]

    def add(self, row: Array) -> None:
        """One more row."""
        weight = next(self._weights)
        if self._whole:
            self._sums[0] = self._sums[0] + row.astype(self._type) * weight
            return
        wide = row if row.dtype.itemsize == 8 else row.astype(np.int64)
        halves = wide >> wide.dtype.type(HALF), wide & wide.dtype.type((1 << HALF) - 1)
        self._sums = [old + half.astype(np.int64) * weight for old, half in zip(self._sums, halves, strict=True)]

    def mean(self) -> Array:
        """The sum divided by that of the weights, in the rows' dtype."""
        high, low = self._sums
        if self._dtype.kind == "b":
            return np.asarray(high > self._total - high, self._dtype)
        if self._whole:
            return rounded(high, self._total).astype(self._dtype)
        above, rest = np.divmod(high, self._total)
        below = rounded((rest << HALF) + low, self._total)  # 2^32 times `above` is even: the parity is that of `below`
        unsigned = np.dtype(np.uint64)  # wraps as two's complement does
        joined = (above.astype(unsigned) << unsigned.type(HALF)) + below.astype(unsigned)
        return np.asarray(joined).astype(self._dtype)


def rounded(sums: Array, total: int | Fraction) -> Array:
    """Exact numbers (int64, or Python's) divided by `total`, rounded half to even."""
    quotient, rest = sums // total, sums % total
    odd = quotient % 2 == 1
    return np.asarray(quotient + ((rest * 2 > total) | ((rest * 2 == total) & odd)))
