"""Tensors of a model: the dtypes that may travel, and what a weights document holds once it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidUpdate
from .messagepack import Scalar

PLAIN = "none"  # the encoding that is none: a tensor's own bytes

Buffer = bytes | bytearray | memoryview
Array = NDArray[Any]

_CODES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
DTYPES: dict[str, np.dtype[Any]] = {np.dtype(code).name: np.dtype(f"<{code}") for code in _CODES}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Tensor(NamedTuple):
    """A named array of the model; `trainable` False for buffers such as BatchNorm's running statistics."""

    name: str
    array: Array
    trainable: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self.array.shape


def tensors_of(names: Iterable[str], arrays: Iterable[Array], trainable: Iterable[bool]) -> Iterator[Tensor]:
    """Tensors of their parts, a whole model of them in tens of microseconds; the shortest of the three counts."""
    return map(_make, zip(names, arrays, trainable, strict=False))


_make: Callable[[tuple[str, Array, bool]], Tensor] = partial(tuple.__new__, Tensor)  # Tensor(…) runs Python for each


class Coded(NamedTuple):
    """What travels in the place of a tensor of this name, dtype and shape."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    encoding: str  # a name of encoding.CODECS
    data: memoryview  # bytes
    delta: bool = False  # the tensor is this and the one of the model that the task named
    scale: float | None = None
    indices: memoryview | None = None  # bytes
    trainable: bool = True


@dataclass(frozen=True, eq=False)
class Parsed:
    """A weights document as it was sent. Its arrays are views of the buffer that it was read from."""

    tensors: Sequence[Tensor | Coded]
    metrics: dict[str, float | None] = field(default_factory=dict)
    metadata: dict[str, Scalar] = field(default_factory=dict)
    extra: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Document(Parsed):
    """A weights document of plain tensors."""

    tensors: Sequence[Tensor]

    @property
    def arrays(self) -> list[Array]:
        """The tensors' arrays, in the model's order."""
        return [tensor.array for tensor in self.tensors]


def name_tensors(
    arrays: Sequence[Array], names: Sequence[str] | None = None, trainable: Sequence[bool] | None = None
) -> tuple[Tensor, ...]:
    """Tensors of plain arrays; without names they are called "0", "1", …; raises InvalidUpdate when counts differ."""
    labels = [str(i) for i in range(len(arrays))] if names is None else list(names)
    flags = [True] * len(arrays) if trainable is None else list(trainable)
    if not len(labels) == len(flags) == len(arrays):
        raise InvalidUpdate(
            f"{len(arrays)} arrays, but {len(labels)} names and {len(flags)} trainable flags",
            expected=len(arrays),
            got=len(labels),
        )
    return tuple(Tensor(n, np.asarray(a), bool(t)) for n, a, t in zip(labels, arrays, flags, strict=True))
