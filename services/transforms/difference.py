"""By how much an update differs from the model that it was trained from: measured and changed a block at a time.

Only trainable floating tensors count; the others are left alone. Numbers are float64, sums are made in one fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import NonFiniteUpdate
from ..weights import BLOCK, Array, Block, Tensor, blocks, check_finite, copy, gather, scatter

ACCURATE = (1e-280, 1e280)  # sums of squares in which nothing overflowed, and nothing that mattered vanished


class Difference:
    """An update minus its model. The update's arrays are written to, the model's are not."""

    def __init__(self, model: Sequence[Tensor], update: Sequence[Tensor]) -> None:
        pairs = [
            (old.array, new.array)
            for old, new in zip(model, update, strict=True)
            if old.trainable and old.dtype.kind not in "iub"
        ]
        self._update = update
        self._old, self._new = [old for old, _ in pairs], [new for _, new in pairs]
        self._blocks = blocks(self._old)
        longest = max((block.size for block in self._blocks), default=0)
        assert longest <= BLOCK
        self._room = np.empty((2, longest))

    def largest(self) -> float:
        """Its L-infinity norm: the largest absolute value, NaN when there is one."""
        with np.errstate(all="ignore"):
            return float(np.max([np.abs(row, out=row).max() for _, row, _ in self._rows()], initial=0.0))

    def norm(self) -> float:
        """Its L2 norm. Raises NonFiniteUpdate when that is no finite number, naming the tensor if one is to blame."""
        norm = self._norm()
        if not math.isfinite(norm):
            check_finite(self._update)
            raise NonFiniteUpdate("the update differs from the model by more than a float64 can tell")
        return norm

    def _norm(self) -> float:
        total = self._squares(1.0)
        if ACCURATE[0] < total < ACCURATE[1]:
            return math.sqrt(total)
        unit = self.largest()
        return unit * math.sqrt(self._squares(unit)) if 0 < unit < math.inf else unit

    def _squares(self, unit: float) -> float:
        """Sum of the squares, in this unit."""
        total = 0.0
        with np.errstate(all="ignore"):
            for _, row, _ in self._rows():
                if unit != 1.0:
                    row /= unit
                total += float(np.square(row, out=row).sum())
        return total

    def scale(self, factor: float) -> None:
        """Make it `factor` times as large, in no place larger: what the tensor's dtype does not hold is rounded towards
        the model."""
        with np.errstate(all="ignore"):
            for block, row, base in self._rows():
                row *= factor
                stored = (base + row).astype(self._new[block.first].dtype)
                wide = np.abs(stored.astype(np.float64) - base) > np.abs(row)
                stored[wide] = np.nextafter(stored[wide], base[wide].astype(stored.dtype))
                scatter(stored, block, self._new)

    def drop(self) -> None:
        """Make it nothing: the update's trainable floating tensors become the model's, to the bit."""
        copy(self._old, self._new)

    def _rows(self) -> Iterator[tuple[Block, Array, Array]]:
        """Each block of it and of the model; valid until the next."""
        for block in self._blocks:
            row, base = self._room[:, : block.size]
            gather(self._old, block, base)
            gather(self._new, block, row)
            np.subtract(row, base, out=row)
            yield block, row, base
