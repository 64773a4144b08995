"""Where everything is in a model's document. What is laid out like it is read without being decoded.

Encoders that write the same tensors in the same form (wire.encode does) make documents of the same bytes, but for the
tensors' data, the number of keys, and what follows the tensors. So one comparison of those bytes tells as much as
decoding: names, dtypes, shapes and places are the model's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import overload

import numpy as np

from ..errors import MalformedUpdate
from . import wire
from .blocks import BLOCK
from .checks import ORDINARY, Spec, check_finite
from .tensors import tensors_of
from .wire import Array, Buffer, Document, Tensor

BEGIN = b"\xa7tensors"  # the first key, after the byte that counts the keys
ONE_KEY = 0x81
KNOWN = 4  # layouts that are remembered
LARGE = BLOCK // 4  # values of a tensor that are looked at apart from what stands before and after them


class Layout:
    """Of a document of the model's tensors. `size`: bytes up to the end of the last one's data, 0 when nothing fits."""

    def __init__(self, model: Document, document: memoryview) -> None:
        self.spec = Spec.of(model.tensors)
        self.size, self._aligned, self._floats = 0, False, False
        plain = all(t.array.nbytes and t.dtype.kind != "b" for t in model.tensors)  # a bool's bytes must be looked at
        if bytes(document[1 : 1 + len(BEGIN)]) != BEGIN or not model.tensors or not plain:
            return
        begin = _bytes(document).ctypes.data
        self._names, self._trainable = [t.name for t in model.tensors], [t.trainable for t in model.tensors]
        self._shapes, self._dtypes = [t.array.shape for t in model.tensors], [t.array.dtype for t in model.tensors]
        self._places = places = [t.array.ctypes.data - begin for t in model.tensors]
        ends = [place + tensor.array.nbytes for place, tensor in zip(places, model.tensors, strict=True)]
        between = np.concatenate([np.arange(*gap) for gap in zip([0, *ends[:-1]], places, strict=True)])
        self._aligned = all(place % wire.ALIGNMENT == 0 for place in places)
        self._floats = self._aligned and all(t.array.dtype == np.dtype("<f4") for t in model.tensors)
        if self._floats:  # so many of the words between them would be of no ordinary size as values
            with np.errstate(all="ignore"):
                self._never_ordinary = _not_ordinary(_bytes(document)[between].view("<f4"))
            self._spans = _spans([place // 4 for place in places], [end // 4 for end in ends])
        self.size = ends[-1]
        self._unit = np.dtype("<u4" if self._floats else "u1")
        self._fixed_at = np.unique(between // self._unit.itemsize)[1:]  # without the one that has the number of keys
        self._fixed = self._units(document)[self._fixed_at]

    def fits(self, document: Buffer) -> bool:
        """Whether the document is laid out like this, up to the end of its tensors."""
        data = _bytes(document)
        if not self.size or len(data) < self.size or data[0] >> 4 != ONE_KEY >> 4:
            return False
        if not data[0] & 15 or data[1 : 1 + len(BEGIN)].tobytes() != BEGIN:
            return False
        return bool((self._units(document).take(self._fixed_at) == self._fixed).all())

    def _units(self, document: Buffer) -> Array:
        """The document up to the end of the tensors in the largest units that what stands between them is made of."""
        return np.frombuffer(document, self._unit, self.size // self._unit.itemsize)

    def take(self, document: Buffer, extra: Mapping[str, Spec] | None = None) -> Document:
        """A document that fits, sharing its memory; raises MalformedUpdate as wire.parse does for what follows its
        tensors. These are made when one is asked for: whoever works on `values` needs none."""
        rest = wire.parse_rest(document, self.size, extra)
        return Document(_Views(self, document), rest.metrics, rest.metadata, rest.extra)

    def read(self, document: Buffer, writable: bool = False) -> tuple[Tensor, ...]:
        """The tensors of any document, sharing its memory; raises MalformedUpdate as wire.decode does."""
        if not self.fits(document):
            return tuple(wire.decode(document, writable).tensors)
        return self._views(document, writable)

    def _views(self, document: Buffer, writable: bool = False) -> tuple[Tensor, ...]:
        data = memoryview(document) if writable else memoryview(document).toreadonly()
        make: Callable[..., Array] = np.ndarray
        arrays = map(make, self._shapes, self._dtypes, repeat(data), self._places)
        return tuple(tensors_of(self._names, arrays, self._trainable))

    def are_values(self, documents: Iterable[Buffer]) -> bool:
        """Whether all fit, and all tensors are float32: then `values` may be worked on instead of the tensors."""
        return self._floats and all(self.fits(document) for document in documents)

    def values(self, document: Buffer, writable: bool = False) -> tuple[Tensor]:
        """A document that `are_values` as one tensor that shares its memory.

        What stands between the tensors' data is in it too, as numbers that mean nothing: `frame` mends what is written.
        """
        data = memoryview(document) if writable else memoryview(document).toreadonly()
        return (Tensor("values", np.frombuffer(data, "<f4", self.size // 4)),)

    def frame(self, buffer: memoryview) -> None:
        """Write a document of the tensors alone but for their data; only for a layout that is aligned."""
        self._units(buffer)[self._fixed_at] = self._fixed
        buffer[: 1 + len(BEGIN)] = bytes([ONE_KEY]) + BEGIN

    def size_of(self, model: Sequence[Tensor]) -> int:
        """Bytes of a document of the model's tensors alone."""
        return self.size if self._aligned else wire.length(wire.encode(model))

    def room(self, model: Sequence[Tensor], buffer: memoryview) -> Sequence[Tensor]:
        """Make `buffer`, of that size, such a document but for the tensors' data; returns the tensors to put it in."""
        if not self._aligned:
            arrays = wire.lay_out(model, buffer)
            return [tensor._replace(array=array) for tensor, array in zip(model, arrays, strict=True)]
        self.frame(buffer)
        return self.read(buffer, writable=True)

    def check_finite(self, document: Buffer) -> bool:
        """Raise NonFiniteUpdate, naming the first tensor that holds NaN or infinity, of a document that fits.

        Returns whether all numbers are of an ordinary size, as checks.check_finite does.
        """
        return (self._floats and self._are_ordinary(document)) or check_finite(self.read(document))

    def _are_ordinary(self, document: Buffer) -> bool:
        """Whether all numbers are no larger than ORDINARY; in one pass, without a copy of large tensors."""
        (values,), found = self.values(document), 0
        with np.errstate(all="ignore"):
            for start, stop, mixed in self._spans:
                block = values.array[start:stop]
                if mixed:
                    found += _not_ordinary(block)
                elif not (block.min() >= -ORDINARY and block.max() <= ORDINARY):  # so it is with NaN
                    return False
        return found == self._never_ordinary


class _Views(Sequence[Tensor]):
    """The tensors of a document that fits its layout."""

    def __init__(self, layout: Layout, document: Buffer) -> None:
        self._layout, self._document = layout, document

    @cached_property
    def _made(self) -> tuple[Tensor, ...]:
        return self._layout._views(self._document)

    def __len__(self) -> int:
        return len(self._layout.spec.entries)

    @overload
    def __getitem__(self, at: int) -> Tensor: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, at: int | slice) -> Tensor | Sequence[Tensor]:
        return self._made[at]


_known: deque[Layout] = deque(maxlen=KNOWN)


def layout_of(document: Buffer) -> Layout:
    """The layout of a model's document, one of the newest if it fits. Raises MalformedUpdate for no document."""
    for known in tuple(_known):
        if known.fits(document):
            return known
    data = memoryview(document)
    made = Layout(wire.decode(data), data)
    try:
        wire.parse_rest(data, made.size)
    except MalformedUpdate:  # another encoder: keys of a tensor follow its data
        made.size = 0
    if made.size:
        _known.append(made)
    return made


def _bytes(document: Buffer) -> Array:
    return np.frombuffer(document, np.uint8)


def _spans(places: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int, bool]]:
    """Spans of at most BLOCK values: pieces of large tensors, and (True) those with words that stand between."""
    found, at = [], 0
    for place, end in zip(places, ends, strict=True):
        if end - place >= LARGE:
            found += [(at, place, True), (place, end, False)]
            at = end
    found.append((at, ends[-1], True))
    cuts = [(range(start, stop, BLOCK), stop, mixed) for start, stop, mixed in found]
    return [(start, min(start + BLOCK, stop), mixed) for starts, stop, mixed in cuts for start in starts]


def _not_ordinary(values: Array) -> int:
    """How many of a block's float32 values are larger than ORDINARY, NaN or infinite."""
    return len(values) - int(np.count_nonzero(np.abs(values) <= ORDINARY))
