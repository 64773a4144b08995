"""`bf16`: the upper half of a float32, rounded to nearest, ties to even. Half the bytes, relative error up to 2^-8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from ..weights import Array, Coded
from .base import Payload, Values, expect_bytes, spans

BF16 = np.dtype(ml_dtypes.bfloat16)
LARGEST = float.fromhex("0x1.fep127")  # about 3.39e38: beyond it lies infinity


@dataclass(frozen=True)
class BFloat16:
    """Half the bytes of float32, relative error up to 2^-8.

    float64 is rounded to float32 first. Numbers of 16 bits gain nothing by it and are left alone."""

    feedback: ClassVar[bool] = False

    def encode(self, values: Values) -> Payload | None:
        """See Codec.encode."""
        if values.own.itemsize <= BF16.itemsize:
            return None
        data = np.empty(values.size, BF16)
        for (start, stop), block in zip(spans(values.size), values, strict=True):
            if not (block.max() <= LARGEST and block.min() >= -LARGEST):  # NaN is neither
                return None
            np.copyto(data[start:stop], block.astype(np.float32, copy=False), casting="unsafe")
        return Payload(data)

    def check(self, coded: Coded, size: int) -> None:
        """See Codec.check."""
        expect_bytes(coded, size * BF16.itemsize)

    def decode(self, coded: Coded, start: int, stop: int, row: Array) -> None:
        """See Codec.decode."""
        np.copyto(row, np.frombuffer(coded.data, BF16)[start:stop], casting="unsafe")
