"""Files in the format of safetensors, made by hand and by its own library."""

from __future__ import annotations

import json
import struct
from typing import Any

from driver_cli.session import safetensors

# Written by safetensors 0.8.0 of {"w": [[1, -2]], "steps": 3, "half": [1.5] in bfloat16, "on": [True, False]}.
FOREIGN = (
    b'\x08\x01\x00\x00\x00\x00\x00\x00{"__metadata__":{"format":"pt"},"steps":{"dtype":"I64","shape":[],"data_offsets"'
    b':[0,8]},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},"half":{"dtype":"BF16","shape":[1],"data_offsets'
    b'":[16,18]},"on":{"dtype":"BOOL","shape":[2],"data_offsets":[18,20]}}    '
    b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00\xc0\xc0?\x01\x00"
)
NAMES = {dtype: code for code, dtype in safetensors.NAMES.items()}


def written(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """A file of that header, which says that it has `size` bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    """A tensor in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def saved(arrays: dict[str, Any]) -> bytes:
    """A file of these arrays, in their order."""
    header, data = {}, b""
    for name, array in arrays.items():
        header[name] = entry(NAMES[array.dtype.name], list(array.shape), len(data), len(data) + array.nbytes)
        data += array.tobytes()
    return written(header, data)
