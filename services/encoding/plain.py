"""`none`: numbers in the tensor's own dtype. Of use for a difference: what is coded is then not what is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..weights import Array, Coded
from .base import Payload, Values, expect_bytes, spans


@dataclass(frozen=True)
class Plain:
    """The tensors' own bytes.

    Rounded to the working dtype, then to the tensor's own."""

    feedback: ClassVar[bool] = False

    def encode(self, values: Values) -> Payload | None:
        """See Codec.encode."""
        data = np.empty(values.size, values.own)
        for (start, stop), block in zip(spans(values.size), values, strict=True):
            with np.errstate(over="ignore"):
                np.copyto(data[start:stop], block, casting="unsafe")
            if not np.isfinite(data[start:stop]).all():
                return None
        return Payload(data)

    def check(self, coded: Coded, size: int) -> None:
        """See Codec.check."""
        expect_bytes(coded, size * coded.dtype.itemsize)

    def decode(self, coded: Coded, start: int, stop: int, row: Array) -> None:
        """See Codec.decode."""
        np.copyto(row, np.frombuffer(coded.data, coded.dtype)[start:stop], casting="unsafe")
