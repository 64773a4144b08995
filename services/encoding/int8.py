"""`int8`: whole numbers from -127 to 127 times one scale per tensor, the largest magnitude over 127.

A quarter of the bytes of float32; every number is off by at most half a scale. Updates are sent as differences, whose
scale is that of the training step and not of the weights (FedPAQ, Reisizadeh et al. 2020). One update is biased, since
it rounds to the nearest; their sum is not: what rounding leaves out is part of the next (error feedback).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..weights import Array, Coded
from .base import Payload, Values, expect_bytes, refuse, scratch, spans

STEPS = 127
SMALLEST = float(np.finfo(np.float32).tiny)  # a smaller scale would itself be coarse


@dataclass(frozen=True)
class Int8:
    """A quarter of the bytes of float32, every number off by at most half a scale (FedPAQ, Reisizadeh et al. 2020).

    The scale is a float32; quotients and products are rounded once, in the working dtype."""

    feedback: ClassVar[bool] = True  # else rounding pulls aside a model that stands still

    def encode(self, values: Values) -> Payload | None:
        """See Codec.encode."""
        largest = 0.0
        for block in values:
            high, low = float(block.max()), float(block.min())
            if not math.isfinite(high - low):
                return None
            largest = max(largest, high, -low)
        with np.errstate(over="ignore", under="ignore"):
            scale = np.float32(largest / STEPS) if largest else np.float32(1)
        if not SMALLEST <= scale < np.inf:
            return None
        data = np.empty(values.size, np.int8)
        quotients = scratch(values.size, values.dtype)
        for (start, stop), block in zip(spans(values.size), values, strict=True):
            row = quotients[: stop - start]
            np.divide(block, scale, out=row)
            np.rint(row, out=row)
            np.copyto(data[start:stop], row, casting="unsafe")
        return Payload(data, scale=float(scale))

    def check(self, coded: Coded, size: int) -> None:
        """See Codec.check."""
        expect_bytes(coded, size)
        scale = math.nan if coded.scale is None else coded.scale
        if not SMALLEST <= scale <= float(np.finfo(np.float32).max):
            refuse(coded, f"scale must be a positive number that float32 holds, got {coded.scale}")

    def decode(self, coded: Coded, start: int, stop: int, row: Array) -> None:
        """See Codec.decode."""
        whole = np.frombuffer(coded.data, np.int8)[start:stop]
        np.multiply(whole, np.float32(coded.scale or 0), out=row, dtype=row.dtype)
