"""`topk`: the largest differences of each tensor and where they are; what is left out waits for the next update.

Sparse updates with memory: Stich, Cordonnier and Jaggi 2018 (arXiv:1809.07599); error feedback began with one-bit
gradients, Seide et al. 2014. The memory itself is kept by the sender, see updates.py.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..weights import Array, Coded
from .base import Payload, Values, refuse, spans, working

INDEX = np.dtype("<u4")
LONGEST = 1 << 32  # elements that an index can tell apart


@dataclass(frozen=True)
class TopK:
    """The largest differences alone, the rest waits for the next update (Stich et al. 2018, arXiv:1809.07599).

    `ratio` of the elements at most, ties by the lower index; a difference of zero is not worth sending."""

    feedback: ClassVar[bool] = True
    ratio: float = 0.01

    def encode(self, values: Values) -> Payload | None:
        """See Codec.encode. Memory: the magnitudes of one tensor."""
        if not 0 < values.size <= LONGEST:
            return None
        magnitudes = np.empty(values.size, values.dtype)
        for (start, stop), block in zip(spans(values.size), values, strict=True):
            if not np.isfinite(block).all():
                return None
            np.abs(block, out=magnitudes[start:stop])
        count = min(values.size, max(1, math.ceil(self.ratio * values.size - 1e-9)))
        magnitudes.partition(values.size - count)
        indices = _largest(values, count, magnitudes[values.size - count])
        return Payload(values.at(indices), indices=indices.astype(INDEX))

    def check(self, coded: Coded, size: int) -> None:
        """See Codec.check. Ascending indices are in range when the last one is, and none comes twice."""
        if coded.indices is None or coded.indices.nbytes % INDEX.itemsize:
            refuse(coded, "indices must be a bin of 4 bytes each")
        count, width = coded.indices.nbytes // INDEX.itemsize, working(coded.dtype).itemsize
        if coded.data.nbytes != count * width:
            shown = f"{count} indices need {count * width} bytes of data, there are {coded.data.nbytes}"
            refuse(coded, shown, expected=count * width, got=coded.data.nbytes)
        if not coded.delta:
            refuse(coded, "what is left out is not known; say that this is a delta")
        indices = np.frombuffer(coded.indices, INDEX)
        for start, stop in spans(count - 1):
            if not (indices[start:stop] < indices[start + 1 : stop + 1]).all():
                refuse(coded, "indices must ascend, each once")
        if count and indices[-1] >= size:
            refuse(coded, f"index {indices[-1]} is not below {size}", limit=size, got=int(indices[-1]))

    def decode(self, coded: Coded, start: int, stop: int, row: Array) -> None:
        """See Codec.decode."""
        assert coded.indices is not None
        ascending = coded.indices.cast("I")
        first = bisect_left(ascending, start)
        last = bisect_left(ascending, stop, first)
        row.fill(0)
        where = np.frombuffer(coded.indices, INDEX)[first:last].astype(np.intp) - start
        row[where] = np.frombuffer(coded.data, row.dtype)[first:last]


def _largest(values: Values, count: int, threshold: float) -> Array:
    """The indices, ascending, of the `count` largest magnitudes, of which `threshold` is the smallest."""
    above: list[Array] = []
    equal: list[Array] = []
    for (start, _), block in zip(spans(values.size), values, strict=True):
        magnitudes = np.abs(block)
        above.append(np.flatnonzero(magnitudes > threshold) + start)
        if threshold > 0 and sum(map(len, equal)) < count:
            equal.append(np.flatnonzero(magnitudes == threshold) + start)
    found = np.concatenate(above)
    return np.sort(np.concatenate([found, *equal])[:count]) if equal else found
