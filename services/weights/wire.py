"""Weights documents: a MessagePack map of raw tensors, framed by hand, decoded in place, bounded and typed.

Encoding writes header bytes and leaves the arrays where they are; decoding shares the received buffer. A tensor may
travel in another form than its own bytes (`Coded`); encoding/ knows what the forms mean. See docs/protocol.md.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeVar, cast

import msgpack
import msgspec
import numpy as np

from ..errors import InvalidUpdate, MalformedUpdate, TooLarge
from .tensors import DTYPES, NAMES, PLAIN, Array, Buffer, Coded, Document, Parsed, Scalar, Tensor, name_tensors

R = TypeVar("R")
MEDIA_TYPE = "application/vnd.msgpack"
LITTLE = sys.byteorder == "little"
ALIGNMENT = 64  # bytes: tensor data begins on such a boundary of the document
MAX_TENSORS = 100_000
MAX_TENSOR_BYTES = 2**32 - 1  # what a MessagePack bin can hold
MAX_DIMENSIONS = 32
COPIED = 1 << 13  # bytes of a tensor that are sooner copied than sent as a part of their own
TOGETHER = 1 << 16  # bytes of headers and small tensors in one part


# ---- encoding
def encode(
    tensors: Sequence[Tensor | Coded],
    metrics: Mapping[str, float | None] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
    extra: Mapping[str, Sequence[Tensor]] | None = None,
) -> list[Buffer]:
    """The document as buffers to be sent one after the other; only small arrays are copied.

    Raises InvalidUpdate for a dtype that is not of the contract, TooLarge for a tensor of 4 GiB or more.
    """
    return _framed(tensors, metrics, metadata, extra).parts


def _framed(
    tensors: Sequence[Tensor | Coded],
    metrics: Mapping[str, float | None] | None,
    metadata: Mapping[str, Scalar] | None,
    extra: Mapping[str, Sequence[Tensor]] | None,
) -> _Frame:
    frame = _Frame()
    frame.map_header(sum([True, metrics is not None, metadata is not None, bool(extra)]))
    frame.pack("tensors")  # first: where they are does not depend on the rest (see layout.py)
    frame.tensors(tensors)
    if metrics is not None:
        frame.pack("metrics", dict(metrics))
    if metadata is not None:
        frame.pack("metadata", dict(metadata))
    if extra:
        frame.pack("extra")
        frame.map_header(len(extra))
        for name, group in extra.items():
            frame.pack(name)
            frame.tensors(group)
    frame.flush()
    return frame


def lay_out(
    tensors: Sequence[Tensor],
    buffer: memoryview,
    metrics: Mapping[str, float | None] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
    extra: Mapping[str, Sequence[Tensor]] | None = None,
) -> list[Array]:
    """Write what `encode` gives into `buffer`, but for the tensors' data: returns the arrays to put it in.

    They are views of the buffer, of the tensors' dtypes and shapes; those of `extra` come last.
    """
    frame, at = _framed(tensors, metrics, metadata, extra), 0
    for part in frame.parts:
        end = at + memoryview(part).nbytes
        if isinstance(part, bytes):  # a header
            buffer[at:end] = part
        at = end
    every = [*tensors, *(one for group in (extra or {}).values() for one in group)]
    return [
        np.ndarray(one.shape, one.dtype, buffer, place) if one.array.nbytes else np.empty(one.shape, one.dtype)
        for one, place in zip(every, frame.places, strict=True)
    ]


def length(parts: Sequence[Buffer]) -> int:
    """Bytes of the parts together."""
    return sum(memoryview(part).nbytes for part in parts)


class _Frame:
    """Header bytes being collected between buffers that are taken as they are."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []
        self.places: list[int] = []  # where each tensor's data begins
        self.size = 0  # bytes of the parts
        self._together: list[bytes] = []  # of the part that is being collected
        self._length = 0  # bytes of that

    def put(self, data: bytes) -> None:
        self._together.append(data)
        self._length += len(data)

    def pack(self, *values: Any) -> None:
        for value in values:
            self.put(msgpack.packb(value))

    def map_header(self, count: int) -> None:
        self.put(_header(count, 0x80, b"\xde", b"\xdf"))

    def tensors(self, tensors: Sequence[Tensor | Coded]) -> None:
        self.put(_header(len(tensors), 0x90, b"\xdc", b"\xdd"))
        if any(isinstance(tensor, Coded) for tensor in tensors):
            for tensor in tensors:
                if isinstance(tensor, Coded):
                    self._coded(tensor)
                else:
                    self._tensors([tensor], _heads.__wrapped__)
        else:
            self._tensors(cast(Sequence[Tensor], tensors), _heads)

    def _tensors(self, tensors: Sequence[Tensor], heads: Callable[..., tuple[bytes, ...]]) -> None:
        arrays = [np.asarray(tensor.array) for tensor in tensors]
        forms = tuple([(t.name, a.dtype, a.shape, t.trainable) for t, a in zip(tensors, arrays, strict=True)])
        for head, array in zip(heads(self.size + self._length, forms), arrays, strict=True):
            self._together.append(head)
            self._length += len(head)
            size = array.nbytes
            if size > COPIED or not LITTLE or not array.dtype.isnative:
                self._data(_bytes(array))
                continue
            self.places.append(self.size + self._length)
            self._together.append(array.tobytes())
            self._length += size
            if self._length >= TOGETHER:
                self.flush()

    def _coded(self, coded: Coded) -> None:
        more = {"encoding": coded.encoding, "delta": coded.delta or None, "scale": coded.scale}
        told = [(key, value) for key, value in more.items() if value is not None]
        keys = len(told) + (coded.indices is not None)
        self.put(_tensor_head(coded.name, NAMES[coded.dtype], coded.shape, coded.trainable, keys))
        for key, value in told:
            self.pack(key, value)
        if coded.indices is not None:
            self.put(b"\xa7indices" + _bin_header(coded.indices.nbytes) + coded.indices)
        self.put(_data_head(self.size + self._length, coded.data.nbytes))
        self._data(coded.data)

    def _data(self, raw: memoryview) -> None:
        self.flush()
        self.places.append(self.size)
        if raw.nbytes:
            self.parts.append(raw)
            self.size += raw.nbytes

    def flush(self) -> None:
        if self._together:
            self.parts.append(b"".join(self._together))
            self.size += self._length
            self._together, self._length = [], 0


def _bytes(array: Array) -> memoryview:
    """An array's elements in C order and little endian, in its own memory when they are that already."""
    dtype = array.dtype
    if array.flags.c_contiguous and array.nbytes and dtype.isnative and dtype.kind != "V" and LITTLE:
        return array.data.cast("B")
    wanted = DTYPES[NAMES.get(dtype) or NAMES[dtype.newbyteorder("<")]]
    return array.astype(wanted, order="C", copy=False).reshape(-1).view(np.uint8).data


@lru_cache(maxsize=8)  # documents of one model begin alike
def _heads(at: int, forms: tuple[tuple[str, np.dtype[Any], tuple[int, ...], bool], ...]) -> tuple[bytes, ...]:
    """What stands before the data of each of these tensors, when all that begins `at` so many bytes."""
    heads = []
    for label, dtype, shape, trainable in forms:
        name = NAMES.get(dtype) or NAMES.get(dtype.newbyteorder("<"))
        if name is None:
            known = ", ".join(DTYPES)
            raise InvalidUpdate(f"tensor {label!r} has dtype {dtype}; known: {known}", tensor=label)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_TENSOR_BYTES:  # before it is made contiguous: a broadcast array holds no memory yet
            raise TooLarge(
                f"tensor {label!r} has {size} bytes; one tensor may have {MAX_TENSOR_BYTES}: split it",
                tensor=label,
                limit=MAX_TENSOR_BYTES,
                got=size,
            )
        head = _tensor_head(label, name, shape, trainable)
        heads.append(head + _data_head(at + len(head), size))
        at += len(heads[-1]) + size
    return tuple(heads)


def _data_head(at: int, size: int) -> bytes:
    """Padding, key and length of data of this size, when all that begins `at` so many bytes."""
    data = b"\xa4data" + _bin_header(size)
    pad = -(at + len(b"\xa3pad\xc4\x00") + len(data)) % ALIGNMENT
    return b"\xa3pad\xc4" + bytes([pad]) + bytes(pad) + data


def _tensor_head(name: str, dtype: str, shape: tuple[int, ...], trainable: bool, more: int = 0) -> bytes:
    """A tensor's map up to its padding, or to `more` keys before that; the same for every document of a model."""
    head = _header((5 if trainable else 6) + more, 0x80, b"\xde", b"\xdf")
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
    encoding: Annotated[str, msgspec.Meta(max_length=16)] = PLAIN
    delta: bool = False
    scale: float | None = None
    indices: memoryview | None = None


_Tensors = Annotated[list[_Tensor], msgspec.Meta(max_length=MAX_TENSORS)]


class _Rest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    metrics: Annotated[dict[_Name, int | float | None], msgspec.Meta(max_length=1000)] = {}
    metadata: _Scalars = {}
    extra: Annotated[dict[_Name, _Tensors], msgspec.Meta(max_length=64)] = {}


class _Document(_Rest):
    tensors: _Tensors


_decoder = msgspec.msgpack.Decoder(_Document)
_rest_decoder = msgspec.msgpack.Decoder(_Rest)


def decode(body: Buffer, writable: bool = False) -> Document:
    """The document of plain tensors in `body`; raises MalformedUpdate naming what was wrong and where (see `parse`)."""
    return plain(parse(body, writable))


def plain(document: Parsed) -> Document:
    """The same, once it is known that nothing in it is coded; raises MalformedUpdate."""
    tensors = []
    for tensor in document.tensors:
        if isinstance(tensor, Coded):
            form = "a difference" if tensor.delta and tensor.encoding == PLAIN else f"coded as {tensor.encoding!r}"
            raise MalformedUpdate(
                f"tensor {tensor.name!r} is {form}; here tensors travel as they are",
                tensor=tensor.name,
                expected=PLAIN,
                got=tensor.encoding,
            )
        tensors.append(tensor)
    return Document(tuple(tensors), document.metrics, document.metadata, document.extra)


def parse(body: Buffer, writable: bool = False) -> Parsed:
    """The document in `body`, sharing its memory; raises MalformedUpdate naming what was wrong and where.

    `writable`: its arrays may be written to, if `body` may.
    """
    raw = _decoded(_decoder, memoryview(body) if writable else memoryview(body).toreadonly())
    return _parsed(raw, _tensors(raw.tensors))


def parse_rest(rest: bytes) -> Parsed:
    """What a document holds beside its tensors, from a map of that alone; raises MalformedUpdate."""
    return _parsed(_decoded(_rest_decoder, rest), ())


def _decoded(decoder: msgspec.msgpack.Decoder[R], body: Buffer) -> R:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedUpdate(f"the body is not a weights document: {error}") from error


def _parsed(raw: _Rest, tensors: tuple[Tensor | Coded, ...]) -> Parsed:
    for name, value in raw.metrics.items():
        if value is not None and not _finite(value):
            raise MalformedUpdate(f"metric {name!r} is not finite; send null instead", metric=name)
    extra = {name: plain(Parsed(_tensors(group))).tensors for name, group in raw.extra.items()}
    metrics = {name: None if value is None else float(value) for name, value in raw.metrics.items()}
    return Parsed(tensors, metrics, dict(raw.metadata), extra)


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _tensors(raw: Sequence[_Tensor]) -> tuple[Tensor | Coded, ...]:
    seen: set[str] = set()
    for tensor in raw:
        if tensor.name in seen:
            raise MalformedUpdate(f"two tensors are called {tensor.name!r}", tensor=tensor.name)
        seen.add(tensor.name)
    return tuple(_tensor(tensor) for tensor in raw)


def _tensor(raw: _Tensor) -> Tensor | Coded:
    dtype = DTYPES.get(raw.dtype)
    if dtype is None:
        known = ", ".join(DTYPES)
        raise MalformedUpdate(f"tensor {raw.name!r} has dtype {raw.dtype!r}; known: {known}", tensor=raw.name)
    if raw.encoding == PLAIN and not raw.delta and raw.scale is None and raw.indices is None:
        return _array(raw, dtype)
    shape, form = tuple(raw.shape), (raw.delta, raw.scale, raw.indices)
    return Coded(raw.name, dtype, shape, raw.encoding, raw.data, *form, raw.trainable)


def _array(raw: _Tensor, dtype: np.dtype[Any]) -> Tensor:
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
        array = np.ndarray(raw.shape, dtype, raw.data)  # read-only when the buffer is
    except (ValueError, TypeError) as error:  # an empty tensor whose other dimensions overflow
        raise MalformedUpdate(f"tensor {raw.name!r}: shape {raw.shape}: {error}", tensor=raw.name) from error
    return Tensor(raw.name, array, raw.trainable)


__all__ = [
    "DTYPES",
    "MEDIA_TYPE",
    "NAMES",
    "PLAIN",
    "Array",
    "Buffer",
    "Coded",
    "Document",
    "Parsed",
    "Scalar",
    "Tensor",
    "decode",
    "digest",
    "encode",
    "lay_out",
    "length",
    "name_tensors",
    "parse",
    "parse_rest",
    "plain",
]
