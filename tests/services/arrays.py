"""Arrays and documents that the tests of weights and of aggregation rules begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from services.weights import Buffer, Tensor
from services.weights.wire import DTYPES, encode

Array = NDArray[Any]
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def joined(parts: Sequence[Buffer]) -> bytes:
    """The document of `encode` as it arrives."""
    return b"".join(parts)


def document(*arrays: Array, **rest: Any) -> bytes:
    """An encoded document of arrays called "0", "1", …"""
    return joined(encode([Tensor(str(i), array) for i, array in enumerate(arrays)], **rest))


def read_plainly(body: bytes) -> dict[str, Any]:
    """The same document by a MessagePack library that knows nothing of this project, without the padding."""
    found: dict[str, Any] = msgpack.unpackb(body)
    for tensor in found["tensors"] + [one for group in found.get("extra", {}).values() for one in group]:
        assert set(tensor.pop("pad")) <= {0}
    return found


def wire_tensor(**changes: Any) -> dict[str, Any]:
    """A tensor of one byte as a map, with some entries changed; None takes an entry out."""
    whole = {"name": "a", "dtype": "uint8", "shape": [1], "data": b"\0", **changes}
    return {key: value for key, value in whole.items() if value is not None}


def packed(*tensors: Mapping[str, Any], **rest: Any) -> bytes:
    """A weights document made by the plain library."""
    body: bytes = msgpack.packb({"tensors": list(tensors), **rest})
    return body


def sample(dtype: str, shape: tuple[int, ...] = (2, 3)) -> Array:
    """An array whose elements are exact in every dtype of the contract: 0, 1, 2, … (bool: False, True, True, …)."""
    return np.arange(int(np.prod(shape))).reshape(shape).astype(DTYPES[dtype])


@st.composite
def any_array(draw: st.DrawFn, dtypes: Sequence[str] = tuple(DTYPES)) -> Array:
    """An array of any dtype of the contract, 0-d and empty ones too, of any bits (a bool: 0 or 1)."""
    dtype, shape = DTYPES[draw(st.sampled_from(list(dtypes)))], draw(SHAPES)
    count = int(np.prod(shape, dtype=int))
    if dtype == np.dtype(bool):
        return np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool).reshape(shape)
    size = count * dtype.itemsize
    octets = draw(st.binary(min_size=size, max_size=size))
    return np.frombuffer(octets, np.uint8).view(dtype).reshape(shape)
