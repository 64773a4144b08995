"""What an update is checked for, beyond being a weights document: the model's tensors, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MalformedUpdate, NonFiniteUpdate, ShapeMismatch
from .blocks import blocks
from .messagepack import Scalar
from .tensors import Coded, Tensor


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


def check_finite(tensors: Sequence[Tensor]) -> None:
    """Raise NonFiniteUpdate, naming the first tensor that holds NaN or infinity. Memory: one block."""
    floats = [tensor for tensor in tensors if tensor.array.dtype.kind not in "iub"]
    arrays = [tensor.array for tensor in floats]
    for block in blocks(arrays):
        if block.first == block.last:
            values = arrays[block.first].reshape(-1)[block.start : block.stop]
        else:
            values = np.concatenate([array.reshape(-1) for array in arrays[block.first : block.last + 1]])
        if not np.isfinite(values).all():
            wrong = next(t.name for t in floats[block.first : block.last + 1] if not np.isfinite(t.array).all())
            raise NonFiniteUpdate(f"tensor {wrong!r} holds NaN or infinity", tensor=wrong)
