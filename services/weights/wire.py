"""Weights documents: a MessagePack map of raw tensors, framed by hand, decoded in place, bounded and typed.

Encoding writes header bytes and leaves the arrays where they are; decoding shares the received buffer. A tensor may
travel in another form than its own bytes (`Coded`); encoding/ knows what the forms mean. See docs/protocol.md.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgpack
import numpy as np

from ..errors import InvalidUpdate, MalformedUpdate, ShapeMismatch, TooLarge
from .checks import Spec
from .messagepack import Reader, Scalar
from .tensors import DTYPES, NAMES, PLAIN, Array, Buffer, Coded, Document, Parsed, Tensor, name_tensors

MEDIA_TYPE = "application/vnd.msgpack"
LITTLE = sys.byteorder == "little"
ALIGNMENT = 64  # bytes: tensor data begins on such a boundary of the document
MAX_TENSORS = 10_000
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
KEYS = ("tensors", "metrics", "metadata", "extra")
MAX_NAME = 512  # characters
MAX_TEXT = 10_000  # characters: it is kept with the run and shown in its results
MAX_TOLD = 1000  # keys of the metrics, and of the metadata
MAX_TOLD_BYTES = 1 << 16  # of either: it is kept with the run too
MAX_GROUPS = 64  # of extra tensors, where nobody says which are wanted
MAX_PAD = 4096  # bytes


def decode(body: Buffer, writable: bool = False) -> Document:
    """The document of plain tensors in `body`; raises MalformedUpdate naming what was wrong and where (see `parse`)."""
    return plain(parse(body, writable))


def plain(document: Parsed) -> Document:
    """The same, once it is known that nothing in it is coded; raises MalformedUpdate."""
    if isinstance(document, Document):
        return document
    tensors = tuple([_plain(tensor) for tensor in document.tensors])
    return Document(tensors, document.metrics, document.metadata, document.extra)


def _plain(tensor: Tensor | Coded) -> Tensor:
    if isinstance(tensor, Tensor):
        return tensor
    form = "a difference" if tensor.delta and tensor.encoding == PLAIN else f"coded as {tensor.encoding!r}"
    raise MalformedUpdate(
        f"tensor {tensor.name!r} is {form}; here tensors travel as they are",
        tensor=tensor.name,
        expected=PLAIN,
        got=tensor.encoding,
    )


def parse(
    body: Buffer,
    writable: bool = False,
    spec: Spec | None = None,
    extra: Mapping[str, Spec] | None = None,
    coded: bool = True,
) -> Parsed:
    """The document in `body`, sharing its memory; raises MalformedUpdate naming what was wrong and where.

    `writable`: its arrays may be written to, if `body` may. `spec`: what its tensors must be, else ShapeMismatch;
    `extra`: which tensors must stand beside them; not `coded`: all of them as they are. This is looked at while the
    bytes are walked: nothing is read beyond the first that is wrong.
    """
    reader = Reader(memoryview(body) if writable else memoryview(body).toreadonly())
    return _document(reader, None, spec, extra, coded)


def parse_rest(body: Buffer, at: int, extra: Mapping[str, Spec] | None = None) -> Parsed:
    """What follows the tensors, from `at` on, of a document that begins with them, as a document without tensors."""
    return _document(Reader(memoryview(body).toreadonly(), at), (), None, extra, False)


def _document(
    reader: Reader,
    tensors: tuple[Tensor | Coded, ...] | None,
    spec: Spec | None,
    wanted: Mapping[str, Spec] | None,
    coded: bool,
) -> Parsed:
    metrics: dict[str, float | None] = {}
    metadata: dict[str, Scalar] = {}
    extra: dict[str, tuple[Tensor, ...]] = {}
    first = None if tensors is None else KEYS[0]
    for key in reader.keys("the document", len(KEYS), MAX_NAME, after=first):
        if key == "tensors":
            tensors = _tensors(reader, spec, coded)
        elif key == "metrics":
            metrics = _metrics(reader)
        elif key == "metadata":
            keys = reader.keys("metadata", MAX_TOLD, MAX_NAME, longest_map=MAX_TOLD_BYTES)
            metadata = {name: reader.scalar(f"metadata[{name!r}]", MAX_TEXT) for name in keys}
        elif key == "extra":
            extra = _extra(reader, wanted)
        else:
            raise reader.wrong(f"it has the key {key!r}; known: {', '.join(KEYS)}")
    if tensors is None:
        raise reader.wrong("it has no tensors")
    reader.end()
    if missing := [name for name in wanted or () if name not in extra]:
        raise _unwanted("misses", missing[0], wanted or {}, extra)
    return Parsed(tensors, metrics, metadata, extra)


def _metrics(reader: Reader) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    for name in reader.keys("metrics", MAX_TOLD, MAX_NAME, longest_map=MAX_TOLD_BYTES):
        value = reader.number(f"metric {name!r}")
        if value is not None and not _finite(value):
            raise MalformedUpdate(f"metric {name!r} is not finite; send null instead", metric=name)
        metrics[name] = None if value is None else float(value)
    return metrics


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _extra(reader: Reader, wanted: Mapping[str, Spec] | None) -> dict[str, tuple[Tensor, ...]]:
    """Groups of tensors by name. `wanted`: those that there must be; None: any."""
    extra: dict[str, tuple[Tensor, ...]] = {}
    for name in reader.keys("extra", MAX_GROUPS, MAX_NAME):
        if wanted is not None and name not in wanted:
            raise _unwanted("holds", name, wanted, [*extra, name])
        try:
            group = Parsed(_tensors(reader, wanted[name] if wanted is not None else None, coded=False))
        except ShapeMismatch as error:
            raise ShapeMismatch(f"extra {name!r}: {error.detail}", extra=name, **error.values) from error
        extra[name] = tuple(plain(group).tensors)
    return extra


def _unwanted(what: str, name: str, wanted: Mapping[str, Spec], got: Iterable[str]) -> MalformedUpdate:
    exchanged = ", ".join(wanted) or "no tensors beside the model's"
    return MalformedUpdate(
        f"the update {what} the extra tensors {name!r}; this run's algorithm exchanges {exchanged}",
        extra=name,
        expected=list(wanted),
        got=list(got),
    )


def _tensors(reader: Reader, spec: Spec | None, coded: bool) -> tuple[Tensor | Coded, ...]:
    """As many as there are, or the first that is not as `spec` says."""
    count = reader.array("tensors")
    if count > MAX_TENSORS:
        raise reader.wrong(f"it has {count} tensors, the limit is {MAX_TENSORS}")
    tensors: list[Tensor | Coded] = []
    seen: set[str] = set()
    for number in range(count):
        tensor = _tensor(reader) if coded else _plain(_tensor(reader))
        if tensor.name in seen:
            raise MalformedUpdate(f"two tensors are called {tensor.name!r}", tensor=tensor.name)
        if spec is not None:
            spec.check_one(number, tensor, count)
        seen.add(tensor.name)
        tensors.append(tensor)
    if spec is not None:
        spec.check_count(count)
    return tuple(tensors)


_FIELDS: dict[str, Callable[[Reader], Any]] = {
    "name": lambda reader: reader.text("a tensor's name", MAX_NAME),
    "dtype": lambda reader: reader.text("a tensor's dtype", 16),
    "shape": lambda reader: _shape(reader),
    "data": lambda reader: reader.binary("a tensor's data"),
    "pad": lambda reader: reader.binary("a tensor's pad", MAX_PAD),
    "trainable": lambda reader: reader.flag("trainable"),
    "encoding": lambda reader: reader.text("a tensor's encoding", 16),
    "delta": lambda reader: reader.flag("delta"),
    "scale": lambda reader: reader.number("a tensor's scale"),
    "indices": lambda reader: reader.binary("a tensor's indices"),
}
_NEEDED = ("name", "dtype", "shape", "data")
_CODING = ("encoding", "delta", "scale", "indices")


def _shape(reader: Reader) -> tuple[int, ...]:
    count = reader.array("a tensor's shape")
    if count > MAX_DIMENSIONS:
        raise reader.wrong(f"a tensor has {count} dimensions, the limit is {MAX_DIMENSIONS}")
    return tuple([reader.natural("a dimension") for _ in range(count)])


def _tensor(reader: Reader) -> Tensor | Coded:
    given: dict[str, Any] = {}
    for key in reader.keys("a tensor", len(_FIELDS), MAX_NAME):
        if key not in _FIELDS:
            raise reader.wrong(f"a tensor has the key {key!r}; known: {', '.join(_FIELDS)}")
        given[key] = _FIELDS[key](reader)
    for key in _NEEDED:
        if key not in given:
            raise reader.wrong(f"a tensor has no {key}")
    name, dtype = given["name"], DTYPES.get(given["dtype"])
    if dtype is None:
        raise MalformedUpdate(f"tensor {name!r} has dtype {given['dtype']!r}; known: {', '.join(DTYPES)}", tensor=name)
    scale = given.get("scale")
    form = (given.get("encoding", PLAIN), given.get("delta", False), scale, given.get("indices"))
    if form == (PLAIN, False, None, None):
        return _array(name, given["dtype"], given["shape"], given["data"], given.get("trainable", True))
    encoding, delta, _, indices = form
    kept = None if scale is None else float(scale)
    return Coded(
        name, dtype, given["shape"], encoding, given["data"], delta, kept, indices, given.get("trainable", True)
    )


def _array(name: str, dtype: str, shape: tuple[int, ...], data: memoryview, trainable: bool) -> Tensor:
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if expected != data.nbytes:
        raise MalformedUpdate(
            f"tensor {name!r}: shape {list(shape)} of {dtype} needs {expected} bytes, data has {data.nbytes}",
            tensor=name,
            expected=expected,
            got=data.nbytes,
        )
    if dtype == "bool" and expected and np.frombuffer(data, np.uint8).max() > 1:
        raise MalformedUpdate(f"tensor {name!r}: a bool is the byte 0 or 1", tensor=name)
    try:
        array = np.ndarray(shape, DTYPES[dtype], data)  # read-only when the buffer is
    except (ValueError, TypeError, OverflowError) as error:  # an empty tensor whose other dimensions overflow
        raise MalformedUpdate(f"tensor {name!r}: shape {list(shape)}: {error}", tensor=name) from error
    return Tensor(name, array, trainable)


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
