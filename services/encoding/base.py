"""What a codec is: the numbers of a tensor in fewer bytes, and back, a block at a time.

Numbers are handled in the working dtype of their tensor: float64 for float64, float32 for every other float.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol

import numpy as np

from ..errors import MalformedUpdate
from ..weights import BLOCK, Array, Coded


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether its numbers are floats; bfloat16's kind does not say so."""
    return dtype.kind not in "iub"


def working(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which numbers of a floating dtype are handled."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def spans(size: int) -> Iterator[tuple[int, int]]:
    """Where the blocks of `size` elements start and stop."""
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def scratch(size: int, dtype: np.dtype[Any]) -> Array:
    """Room for the longest block of `size` elements."""
    return np.empty(min(size, BLOCK), dtype)


class Values:
    """What is to be coded: the numbers of `array`, or by how much they differ from those of `base`."""

    def __init__(self, array: Array, base: Array | None = None) -> None:
        self.own, self.dtype = array.dtype, working(array.dtype)
        self.size = array.size
        self._array = array.reshape(-1)
        self._base = None if base is None else base.reshape(-1)
        self._row = scratch(self.size, self.dtype)

    def __iter__(self) -> Iterator[Array]:
        """Block after block, each valid until the next."""
        for start, stop in spans(self.size):
            yield self._of(slice(start, stop), self._row[: stop - start])

    def at(self, indices: Array) -> Array:
        """The numbers at these indices."""
        return self._of(indices, np.empty(len(indices), self.dtype))

    def _of(self, where: slice | Array, row: Array) -> Array:
        part: Array = self._array[where]
        if self._base is None:
            return part.astype(self.dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):  # codecs look for what is not finite
            np.subtract(part, self._base[where], out=row, dtype=self.dtype)
        return row


class Payload(NamedTuple):
    """A tensor's numbers as a codec writes them."""

    data: Array
    scale: float | None = None
    indices: Array | None = None


class Codec(Protocol):
    """One form of numbers. Frozen: its parameters are its own, what is coded comes in."""

    feedback: ClassVar[bool]  # whether a sender keeps what an update leaves out, and adds it to the next

    def encode(self, values: Values) -> Payload | None:
        """The numbers in this form; None when it does not suit them, or cannot keep its error bound."""
        ...

    def check(self, coded: Coded, size: int) -> None:
        """Raise MalformedUpdate, naming the tensor, unless this is a form of `size` numbers."""
        ...

    def decode(self, coded: Coded, start: int, stop: int, row: Array) -> None:
        """Write the numbers from `start` to `stop` into `row`, which is of the working dtype."""
        ...


def refuse(coded: Coded, why: str, **values: Any) -> NoReturn:
    """Raise MalformedUpdate for a coded tensor."""
    raise MalformedUpdate(f"tensor {coded.name!r}: {why}", tensor=coded.name, encoding=coded.encoding, **values)


def expect_bytes(coded: Coded, expected: int) -> None:
    """Raise MalformedUpdate unless its data has so many bytes."""
    if coded.data.nbytes != expected:
        shown = f"shape {list(coded.shape)} as {coded.encoding} needs {expected} bytes, data has {coded.data.nbytes}"
        refuse(coded, shown, expected=expected, got=coded.data.nbytes)
