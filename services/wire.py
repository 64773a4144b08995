"""Weights documents: a MessagePack map of raw tensors, framed by hand, decoded in place, bounded and typed.

Encoding writes header bytes and leaves the arrays where they are; decoding shares the received buffer. See
docs/protocol.md for the format.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import ml_dtypes
import msgpack
import msgspec
import numpy as np
from numpy.typing import NDArray

from .blocks import blocks
from .errors import InvalidUpdate, MalformedUpdate, NonFiniteUpdate, ShapeMismatch, TooLarge

MEDIA_TYPE = "application/vnd.msgpack"
ALIGNMENT = 64  # bytes: tensor data begins on such a boundary of the document
MAX_TENSORS = 100_000
MAX_TENSOR_BYTES = 2**32 - 1  # what a MessagePack bin can hold
MAX_DIMENSIONS = 32

Buffer = bytes | bytearray | memoryview
Array = NDArray[Any]
Scalar = str | bool | int | float | None

_CODES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
DTYPES: dict[str, np.dtype[Any]] = {np.dtype(code).name: np.dtype(f"<{code}") for code in _CODES}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Tensor(NamedTuple):
    """A named array of the model; `trainable` False for buffers such as BatchNorm's running statistics."""

    name: str
    array: Array
    trainable: bool = True


@dataclass(frozen=True, eq=False)
class Document:
    """A decoded weights document. Its arrays are views of the buffer that it was decoded from."""

    tensors: tuple[Tensor, ...]
    metrics: dict[str, float | None] = field(default_factory=dict)
    metadata: dict[str, Scalar] = field(default_factory=dict)
    extra: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

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


# ---- encoding
def encode(
    tensors: Sequence[Tensor],
    metrics: Mapping[str, float | None] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
    extra: Mapping[str, Sequence[Tensor]] | None = None,
) -> list[Buffer]:
    """The document as buffers to be sent one after the other; the arrays' own memory is not copied.

    Raises InvalidUpdate for a dtype that is not of the contract, TooLarge for a tensor of 4 GiB or more.
    """
    frame = _Frame()
    present = [metrics is not None, metadata is not None, True, bool(extra)]
    frame.map_header(sum(present))
    if metrics is not None:
        frame.pack("metrics", dict(metrics))
    if metadata is not None:
        frame.pack("metadata", dict(metadata))
    frame.pack("tensors")
    frame.tensors(tensors)
    if extra:
        frame.pack("extra")
        frame.map_header(len(extra))
        for name, group in extra.items():
            frame.pack(name)
            frame.tensors(group)
    return frame.finish()


def lay_out(tensors: Sequence[Tensor], buffer: memoryview) -> list[Array]:
    """Write what `encode(tensors)` gives into `buffer`, but for the tensors' data: returns the arrays to put it in.

    They are views of the buffer, of the tensors' dtypes and shapes.
    """
    places, at = list[int](), 0
    for part in encode(tensors):
        end = at + memoryview(part).nbytes
        if isinstance(part, bytes):
            buffer[at:end] = part
        else:
            places.append(at)
        at = end
    filled = iter(places)
    models = [np.asarray(tensor.array) for tensor in tensors]
    return [
        np.ndarray(one.shape, one.dtype, buffer, next(filled)) if one.nbytes else np.empty(one.shape, one.dtype)
        for one in models
    ]


def length(parts: Sequence[Buffer]) -> int:
    """Bytes of the parts together."""
    return sum(memoryview(part).nbytes for part in parts)


class _Frame:
    """Header bytes being collected between buffers that are taken as they are."""

    def __init__(self) -> None:
        self._parts: list[Buffer] = []
        self._head = bytearray()
        self._sent = 0

    def pack(self, *values: Any) -> None:
        for value in values:
            self._head += msgpack.packb(value)

    def map_header(self, count: int) -> None:
        self._head += _header(count, 0x80, b"\xde", b"\xdf")

    def tensors(self, tensors: Sequence[Tensor]) -> None:
        self._head += _header(len(tensors), 0x90, b"\xdc", b"\xdd")
        for tensor in tensors:
            self._tensor(tensor)

    def _tensor(self, tensor: Tensor) -> None:
        array = np.asarray(tensor.array)
        name = NAMES.get(array.dtype) or NAMES.get(array.dtype.newbyteorder("<"))
        if name is None:
            known = ", ".join(DTYPES)
            raise InvalidUpdate(f"tensor {tensor.name!r} has dtype {array.dtype}; known: {known}", tensor=tensor.name)
        if array.nbytes > MAX_TENSOR_BYTES:  # before it is made contiguous: a broadcast array holds no memory yet
            raise TooLarge(
                f"tensor {tensor.name!r} has {array.nbytes} bytes; one tensor may have {MAX_TENSOR_BYTES}: split it",
                tensor=tensor.name,
                limit=MAX_TENSOR_BYTES,
                got=array.nbytes,
            )
        raw = array.astype(DTYPES[name], order="C", copy=False).reshape(-1).view(np.uint8)
        self._head += _tensor_head(tensor.name, name, array.shape, tensor.trainable)
        data = b"\xa4data" + _bin_header(raw.nbytes)
        at = self._sent + len(self._head) + len(b"\xa3pad\xc4\x00") + len(data)
        pad = -at % ALIGNMENT
        self._head += b"\xa3pad\xc4" + bytes([pad]) + bytes(pad) + data
        self._flush()
        if raw.nbytes:
            self._parts.append(raw.data)
            self._sent += raw.nbytes

    def _flush(self) -> None:
        self._parts.append(bytes(self._head))
        self._sent += len(self._head)
        self._head.clear()

    def finish(self) -> list[Buffer]:
        if self._head:
            self._flush()
        return self._parts


@lru_cache(maxsize=4096)
def _tensor_head(name: str, dtype: str, shape: tuple[int, ...], trainable: bool) -> bytes:
    """A tensor's map up to its padding; the same for every document of a model."""
    head = _header(5 if trainable else 6, 0x80, b"\xde", b"\xdf")
    for value in ("name", name, "dtype", dtype, "shape", list(shape)):
        head += msgpack.packb(value)
    return head if trainable else head + msgpack.packb("trainable") + msgpack.packb(False)


def _header(count: int, fix: int, wide: bytes, wider: bytes) -> bytes:
    if count < 16:
        return bytes([fix | count])
    return wide + struct.pack(">H", count) if count < 1 << 16 else wider + struct.pack(">I", count)


def _bin_header(size: int) -> bytes:
    if size < 1 << 8:
        return b"\xc4" + bytes([size])
    return b"\xc5" + struct.pack(">H", size) if size < 1 << 16 else b"\xc6" + struct.pack(">I", size)


def digest(parts: Sequence[Buffer]) -> str:
    """`sha256-` and the hex digits of the sha256 of the parts, one after the other."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return f"sha256-{state.hexdigest()}"


# ---- decoding
_Name = Annotated[str, msgspec.Meta(max_length=512)]
_Text = Annotated[str, msgspec.Meta(max_length=10_000)]  # it is kept with the run and shown in its results
_Scalars = Annotated[dict[_Name, _Text | bool | int | float | None], msgspec.Meta(max_length=1000)]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: _Name
    dtype: Annotated[str, msgspec.Meta(max_length=16)]
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    data: memoryview
    pad: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""
    trainable: bool = True


_Tensors = Annotated[list[_Tensor], msgspec.Meta(max_length=MAX_TENSORS)]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    tensors: _Tensors
    metrics: Annotated[dict[_Name, int | float | None], msgspec.Meta(max_length=1000)] = {}
    metadata: _Scalars = {}
    extra: Annotated[dict[_Name, _Tensors], msgspec.Meta(max_length=64)] = {}


_decoder = msgspec.msgpack.Decoder(_Document)


def decode(body: Buffer, writable: bool = False) -> Document:
    """The document in `body`, sharing its memory; raises MalformedUpdate naming what was wrong and where.

    `writable`: its arrays may be written to, if `body` may.
    """
    try:
        raw = _decoder.decode(memoryview(body) if writable else memoryview(body).toreadonly())
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedUpdate(f"the body is not a weights document: {error}") from error
    for name, value in raw.metrics.items():
        if value is not None and not _finite(value):
            raise MalformedUpdate(f"metric {name!r} is not finite; send null instead", metric=name)
    extra = {name: _arrays(group) for name, group in raw.extra.items()}
    metrics = {name: None if value is None else float(value) for name, value in raw.metrics.items()}
    return Document(_arrays(raw.tensors), metrics, dict(raw.metadata), extra)


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _arrays(raw: Sequence[_Tensor]) -> tuple[Tensor, ...]:
    seen: set[str] = set()
    for tensor in raw:
        if tensor.name in seen:
            raise MalformedUpdate(f"two tensors are called {tensor.name!r}", tensor=tensor.name)
        seen.add(tensor.name)
    return tuple(_array(tensor) for tensor in raw)


def _array(raw: _Tensor) -> Tensor:
    dtype = DTYPES.get(raw.dtype)
    if dtype is None:
        known = ", ".join(DTYPES)
        raise MalformedUpdate(f"tensor {raw.name!r} has dtype {raw.dtype!r}; known: {known}", tensor=raw.name)
    expected = math.prod(raw.shape) * dtype.itemsize
    if expected != raw.data.nbytes:
        raise MalformedUpdate(
            f"tensor {raw.name!r}: shape {raw.shape} of {raw.dtype} needs {expected} bytes, data has {raw.data.nbytes}",
            tensor=raw.name,
            expected=expected,
            got=raw.data.nbytes,
        )
    if raw.dtype == "bool" and expected and np.frombuffer(raw.data, np.uint8).max() > 1:
        raise MalformedUpdate(f"tensor {raw.name!r}: a bool is the byte 0 or 1", tensor=raw.name)
    try:
        array = np.ndarray(raw.shape, dtype, raw.data)  # read-only, as the buffer is
    except (ValueError, TypeError) as error:  # an empty tensor whose other dimensions overflow
        raise MalformedUpdate(f"tensor {raw.name!r}: shape {raw.shape}: {error}", tensor=raw.name) from error
    return Tensor(raw.name, array, raw.trainable)


# ---- checks
@dataclass(frozen=True)
class Spec:
    """Names, dtypes and shapes of a model's tensors, in order."""

    entries: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Spec:
        """The spec of `tensors`."""
        return cls(tuple((t.name, t.array.dtype, t.array.shape) for t in tensors))

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Raise ShapeMismatch, naming the first tensor that is not as this spec says."""
        got = Spec.of(tensors).entries
        if got == self.entries:
            return
        for want, have in zip(self.entries, got, strict=False):
            for what, expected, found in zip(("name", "dtype", "shape"), want, have, strict=True):
                if expected != found:
                    shown = [list(v) if isinstance(v, tuple) else str(v) for v in (expected, found)]
                    raise ShapeMismatch(
                        f"tensor {want[0]!r}: expected {what} {shown[0]}, got {shown[1]}",
                        tensor=want[0],
                        expected=shown[0],
                        got=shown[1],
                    )
        if len(got) != len(self.entries):
            what, longer = ("missing", self.entries) if len(got) < len(self.entries) else ("not of the model", got)
            first = longer[min(len(got), len(self.entries))][0]
            raise ShapeMismatch(
                f"expected {len(self.entries)} tensors, got {len(got)}: {first!r} is {what}",
                tensor=first,
                expected=len(self.entries),
                got=len(got),
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
