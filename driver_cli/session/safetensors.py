"""Reading a `.safetensors` file: the length of a header (8 bytes, little endian), the header in JSON, tensors' data.

The header maps names to `{"dtype", "shape", "data_offsets": [begin, end]}`, counted from the end of the header; text
under `__metadata__` is passed over. The data has no holes. The format is that of Hugging Face's library of this name.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np

from services.errors import MalformedUpdate
from services.weights import DTYPES, MAX_DIMENSIONS, MAX_TENSORS, Tensor

MAX_HEADER = 100_000_000  # bytes, as the library has it
METADATA = "__metadata__"
NAMES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "BOOL": "bool",
}

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Entry(msgspec.Struct):
    dtype: str
    shape: Annotated[list[_Size], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    data_offsets: tuple[_Size, _Size]


def read(content: memoryview) -> tuple[Tensor, ...]:
    """The tensors of a file's bytes, in the order of their data and sharing its memory; raises MalformedUpdate."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(MAX_HEADER, len(content) - 8):
        raise MalformedUpdate("no safetensors file: the header is longer than the file or than 100 MB")
    entries, data = _entries(content[8 : 8 + size]), content[8 + size :]
    found, at = [], 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if begin != at or end > len(data):
            raise MalformedUpdate(f"tensor {name!r}: its data is not where the one before ends, or beyond the file's")
        found.append(_tensor(name, entry, data[begin:end]))
        at = end
    if at != len(data):
        raise MalformedUpdate(f"{len(data) - at} bytes at the end belong to no tensor: is the file whole?")
    return tuple(found)


def _entries(header: memoryview) -> dict[str, _Entry]:
    try:
        given = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        given.pop(METADATA, None)
        if len(given) > MAX_TENSORS:
            raise MalformedUpdate(f"the file holds {len(given)} tensors; {MAX_TENSORS} are the limit")
        return {name: msgspec.json.decode(raw, type=_Entry) for name, raw in given.items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedUpdate(f"no safetensors file: its header is wrong: {error}") from error


def _tensor(name: str, entry: _Entry, data: memoryview) -> Tensor:
    if entry.dtype not in NAMES:
        known = ", ".join(NAMES)
        raise MalformedUpdate(f"tensor {name!r} is of type {entry.dtype!r}; known: {known}")
    dtype = DTYPES[NAMES[entry.dtype]]
    if math.prod(entry.shape) * dtype.itemsize != len(data):
        raise MalformedUpdate(f"tensor {name!r}: {entry.dtype} of shape {entry.shape} does not have {len(data)} bytes")
    return Tensor(name, np.frombuffer(data, dtype).reshape(entry.shape))
