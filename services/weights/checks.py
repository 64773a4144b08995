"""What an update is checked for, beyond being a weights document: the model's tensors, finite numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidUpdate, MalformedUpdate, NonFiniteUpdate, ShapeMismatch
from .blocks import BLOCK, blocks
from .messagepack import Scalar
from .tensors import Array, Coded, Tensor

FAR, FAR_FLOAT64 = 1e18, 1e150  # L2 norms of a tensor's difference to the model: their squares are finite numbers
ORDINARY = 1e12  # of numbers up to here not even the largest tensor (4 GiB) of differences reaches FAR


@dataclass(frozen=True)
class Spec:
    """Names, dtypes and shapes of a model's tensors, in order."""

    entries: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]

    @classmethod
    def of(cls, tensors: Iterable[Tensor | Coded]) -> Spec:
        """The spec of `tensors`."""
        return cls(tuple((t.name, t.dtype, t.shape) for t in tensors))

    def check(self, tensors: Sequence[Tensor | Coded]) -> None:
        """Raise ShapeMismatch, naming the first tensor that is not as this spec says."""
        for number, tensor in enumerate(tensors):
            self.check_one(number, tensor, len(tensors))
        self.check_count(len(tensors))

    def check_one(self, number: int, tensor: Tensor | Coded, count: int) -> None:
        """The same of the tensor in this place, of so many."""
        if number >= len(self.entries):
            raise self._other_count(count, tensor.name, "not of the model")
        want, have = self.entries[number], (tensor.name, tensor.dtype, tensor.shape)
        if want == have:
            return
        what, expected, got = next(
            one for one in zip(("name", "dtype", "shape"), want, have, strict=True) if one[1] != one[2]
        )
        shown = [list(v) if isinstance(v, tuple) else str(v) for v in (expected, got)]
        raise ShapeMismatch(
            f"tensor {want[0]!r}: expected {what} {shown[0]}, got {shown[1]}",
            tensor=want[0],
            expected=shown[0],
            got=shown[1],
        )

    def check_count(self, count: int) -> None:
        """Raise ShapeMismatch, naming the first that is missing, unless there are as many."""
        if count < len(self.entries):
            raise self._other_count(count, self.entries[count][0], "missing")

    def _other_count(self, count: int, first: str, what: str) -> ShapeMismatch:
        return ShapeMismatch(
            f"expected {len(self.entries)} tensors, got {count}: {first!r} is {what}",
            tensor=first,
            expected=len(self.entries),
            got=count,
        )


def check_metadata(metadata: Mapping[str, Scalar]) -> None:
    """Raise MalformedUpdate, naming the key, for a number that JSON could not carry on."""
    for name, value in metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise MalformedUpdate(f"metadata[{name!r}] is not finite", key=name)


def check_finite(tensors: Sequence[Tensor]) -> bool:
    """Raise NonFiniteUpdate, naming the first tensor that holds NaN or infinity. Memory: one block.

    Returns whether all numbers are of an ordinary size, too: an update and a model that are so lie near each other.
    """
    ordinary = True
    floats = [tensor for tensor in tensors if tensor.array.dtype.kind not in "iub"]
    arrays = [tensor.array for tensor in floats]
    for block in blocks(arrays):
        if block.first == block.last:
            values = arrays[block.first].reshape(-1)[block.start : block.stop]
        else:
            values = np.concatenate([array.reshape(-1) for array in arrays[block.first : block.last + 1]])
        if _are_ordinary(values):
            continue
        ordinary = False
        if not np.isfinite(values).all():
            wrong = next(t.name for t in floats[block.first : block.last + 1] if not np.isfinite(t.array).all())
            raise NonFiniteUpdate(f"tensor {wrong!r} holds NaN or infinity", tensor=wrong)
    return ordinary


def _are_ordinary(values: Array) -> bool:
    if values.dtype == np.float16:  # which holds nothing larger
        return bool(np.isfinite(values).all())
    with np.errstate(all="ignore"):
        return bool((np.abs(values) <= values.dtype.type(ORDINARY)).all())


def check_distance(update: Sequence[Tensor], model: Sequence[Tensor] | None = None) -> None:
    """Raise naming tensor, limit and norm, for a tensor that is absurdly far from the model's.

    Without a model the update's own norm counts: of initial weights, and of what is a difference already. All numbers
    are finite. Memory: two blocks.
    """
    for index, new in enumerate(update):
        if new.dtype.kind in "iub":
            continue
        limit = FAR_FLOAT64 if new.dtype == np.float64 else FAR
        norm = _norm(new.array, None if model is None else model[index].array, limit)
        if norm > 1.0:
            got = min(norm, sys.float_info.max / limit) * limit
            what = "from the round's model" if model is not None else "from zero"
            raise InvalidUpdate(
                f"tensor {new.name!r} is {got:.3g} (L2 norm) away {what}, at most {limit:g} is taken: training has"
                " diverged; lower the learning rate, or clip gradients",
                tensor=new.name,
                limit=limit,
                got=got,
            )


def _norm(new: Array, old: Array | None, unit: float) -> float:
    """The L2 norm of a difference, in this unit; never infinite."""
    total, new = 0.0, new.reshape(-1)
    for start in range(0, new.size, BLOCK):
        row = new[start : start + BLOCK].astype(np.float64)
        row /= unit
        if old is not None:
            base = old.reshape(-1)[start : start + BLOCK].astype(np.float64)
            base /= unit
            row -= base
        largest = float(np.abs(row).max())
        if largest > 0:
            row /= largest  # squares neither overflow nor vanish
            total = math.hypot(total, largest * math.sqrt(float(np.square(row, out=row).sum())))
    return total
