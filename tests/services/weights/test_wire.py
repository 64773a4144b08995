"""Weights documents: what is encoded comes back bit for bit, in a form that any MessagePack library reads."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidUpdate, TooLarge
from services.weights import Tensor
from services.weights.wire import ALIGNMENT, DTYPES, Document, decode, digest, encode, name_tensors
from tests.services.arrays import Array, any_array, document, joined, packed, read_plainly, sample, wire_tensor


def assert_same(got: Array, expected: Array) -> None:
    """Equal dtype, shape and bits (NaN and -0.0 too)."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


def test_the_dtypes_are_those_of_the_contract() -> None:
    """float16, bfloat16, float32, float64, every (u)int of 8 to 64 bits, and bool; nothing else."""
    floats = {"float16", "bfloat16", "float32", "float64"}
    integers = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    assert set(DTYPES) == floats | integers | {"bool"}


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3), (2, 1, 3, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    """A tensor keeps name, dtype, shape and bits; 0-d and empty tensors are ordinary."""
    array = sample(dtype, shape)
    (tensor,) = decode(joined(encode([Tensor("layer.0/weight", array)]))).tensors
    assert (tensor.name, tensor.trainable) == ("layer.0/weight", True)
    assert_same(tensor.array, array)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", ">f8", ">u8"])
def test_a_big_endian_array_travels_little_endian(dtype: str) -> None:
    """The byte order of the sender's array does not matter: the values arrive, in little-endian bytes."""
    array = np.array([1, 2, 258]).astype(dtype)
    body = document(array)
    assert read_plainly(body)["tensors"][0]["data"] == array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert decode(body).arrays[0].tolist() == [1, 2, 258]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(4, 6)[::2, ::3],
        np.arange(6).reshape(2, 3).T,
        np.arange(5)[::-1],
        np.broadcast_to(np.int64(7), (2, 3)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ],
    ids=["strided", "transposed", "reversed", "broadcast", "fortran"],
)
def test_an_array_of_any_layout_travels_in_c_order(array: Array) -> None:
    """Non-contiguous arrays arrive as their values, row by row."""
    assert decode(document(array)).arrays[0].tolist() == array.tolist()


def test_what_comes_with_an_update_comes_back() -> None:
    """Metrics, metadata, the trainable flag and extra tensors survive; a metric may be null."""
    tensors = [Tensor("w", sample("float32")), Tensor("running_mean", sample("float64", (3,)), trainable=False)]
    metrics = {"loss": 0.5, "accuracy": None}
    metadata: dict[str, Any] = {"num_training_examples": 60000, "device": "cpu", "ok": True, "lr": 0.1, "note": None}
    extra = {"control": [Tensor("w", sample("float32"))], "none": []}
    got = decode(joined(encode(tensors, metrics, metadata, extra)))
    assert [(t.name, t.trainable) for t in got.tensors] == [("w", True), ("running_mean", False)]
    assert got.metrics == metrics
    assert got.metadata == metadata
    assert type(got.metadata["num_training_examples"]) is int
    assert list(got.extra) == ["control", "none"]
    assert_same(got.extra["control"][0].array, tensors[0].array)


def test_a_model_has_tensors_only() -> None:
    """Without metrics, metadata and extra the map has one key, so that equal models have equal digests."""
    assert list(read_plainly(document(sample("int8")))) == ["tensors"]
    assert decode(document(sample("int8"))).metrics == {}


def framed(tensor: Tensor, at: int) -> dict[str, Any]:
    """The map that a plain library would pack for a tensor whose map begins at byte `at` of the document."""
    whole: dict[str, Any] = {"name": tensor.name, "dtype": tensor.array.dtype.name, "shape": list(tensor.array.shape)}
    if not tensor.trainable:
        whole["trainable"] = False
    whole |= {"pad": b"", "data": tensor.array.tobytes()}
    whole["pad"] = bytes(-(at + len(msgpack.packb(whole)) - len(whole["data"])) % ALIGNMENT)
    return whole


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300])
def test_the_bytes_are_those_of_a_plain_library(count: int) -> None:
    """The hand-made frame is what `msgpack.packb` makes of the same map, short and long headers alike."""
    sizes = [3, 0, 255, 256, 65535, 65536]
    tensors = [Tensor(f"t{i}", np.full(sizes[i % 6], i % 256, np.uint8), i % 2 == 0) for i in range(count)]
    metrics, metadata = {"loss": 1.5}, {f"key{i}": i for i in range(20)}
    rest = {"metrics": metrics, "metadata": metadata}
    at = len(msgpack.packb({"tensors": [None] * count})) - count
    maps = []
    for tensor in tensors:
        maps.append(framed(tensor, at))
        at += len(msgpack.packb(maps[-1]))
    assert joined(encode(tensors, metrics, metadata)) == msgpack.packb({"tensors": maps, **rest})


def test_a_plain_library_reads_it_and_writes_it_without_padding() -> None:
    """A stranger's document needs no `pad`; ours, with the padding ignored, says the same."""
    theirs = packed(wire_tensor(name="w", dtype="float32", shape=[2], data=np.array([1, 2], "<f4").tobytes()))
    assert decode(theirs).arrays[0].tolist() == [1, 2]
    assert read_plainly(joined(encode(decode(theirs).tensors))) == msgpack.unpackb(theirs)


@given(st.lists(any_array(), max_size=6), st.text(max_size=300), st.dictionaries(st.text(max_size=70), st.integers()))
def test_data_begins_on_a_boundary_of_64_bytes(arrays: list[Array], name: str, metadata: dict[str, int]) -> None:
    """Whatever stands before it, each tensor's data can be used in place by a reader that maps the document."""
    small = {key[:8]: value % 2**63 for key, value in metadata.items()}
    at = 0
    for part in encode([Tensor(f"{name}{i}", a) for i, a in enumerate(arrays)], metadata=small):
        if not isinstance(part, bytes):
            assert at % ALIGNMENT == 0
        at += memoryview(part).nbytes


def test_encoding_leaves_the_arrays_where_they_are() -> None:
    """Of a large contiguous tensor no copy is made: the buffer that is sent is the array's own memory."""
    array = np.zeros(1 << 20, np.float32)
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in encode([Tensor("w", array)]))


def test_decoding_shares_the_received_buffer() -> None:
    """No copy is made of what was received, and nobody can change it through an array."""
    body = bytearray(document(sample("float32"), sample("int64", (4,))))
    arrays = decode(body).arrays
    assert all(np.shares_memory(array, np.frombuffer(body, np.uint8)) for array in arrays)
    assert not any(array.flags.writeable for array in arrays)


def extra_of(got: Document) -> list[tuple[str, str, bool, str, bytes]]:
    """Extra tensors as plain values."""
    every = [(group, tensor) for group, tensors in got.extra.items() for tensor in tensors]
    return [(g, t.name, t.trainable, t.array.dtype.name, t.array.tobytes()) for g, t in every]


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.floats()
NAMES = st.text(max_size=40)


@given(
    tensors=st.lists(st.tuples(NAMES, any_array(), st.booleans()), max_size=5, unique_by=lambda t: t[0]),
    metrics=st.dictionaries(NAMES, st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    metadata=st.dictionaries(NAMES, SCALARS, max_size=4),
    more=st.dictionaries(NAMES, any_array(), max_size=3),
)
def test_any_document_comes_back(
    tensors: list[tuple[str, Array, bool]], metrics: dict[str, float | None], metadata: Any, more: dict[str, Array]
) -> None:
    """Encoding and decoding is the identity on every document, and encoding again gives the same bytes."""
    given_tensors = [Tensor(*tensor) for tensor in tensors]
    given_extra = {name: [Tensor(name, array, False)] for name, array in more.items()}
    body = joined(encode(given_tensors, metrics, metadata, given_extra))
    got = decode(body)
    assert [(t.name, t.trainable) for t in got.tensors] == [(t.name, t.trainable) for t in given_tensors]
    for tensor, (_, array, _) in zip(got.tensors, tensors, strict=True):
        assert_same(tensor.array, array)
    assert got.metrics == metrics
    assert repr(got.metadata) == repr(metadata)
    assert extra_of(got) == [(n, n, False, a.dtype.name, a.tobytes()) for n, a in more.items()]
    assert joined(encode(got.tensors, got.metrics, got.metadata, got.extra)) == body


def test_a_digest_is_of_the_bytes_however_they_are_cut() -> None:
    """`sha256-` and the 64 hex digits; that of nothing is the well-known one."""
    assert digest([]) == "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    parts = encode([Tensor("w", sample("float32"))])
    assert digest(parts) == digest([joined(parts)])


def test_plain_arrays_are_named_by_their_place() -> None:
    """Without names the tensors are called "0", "1", …; a list of another length is refused, not cut."""
    arrays = [np.zeros(1), np.ones(1)]
    assert [tensor.name for tensor in name_tensors(arrays)] == ["0", "1"]
    assert [tensor.trainable for tensor in name_tensors(arrays, trainable=[True, False])] == [True, False]
    with pytest.raises(InvalidUpdate, match="2 arrays, but 1 names"):
        name_tensors(arrays, names=["only"])


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(1, complex), np.zeros(1, "M8[s]")])
def test_another_dtype_is_refused_by_name(array: Array) -> None:
    """An array that the contract has no dtype for is refused, naming tensor and dtype."""
    with pytest.raises(InvalidUpdate, match=r"tensor '0' has dtype .*known: float16"):
        document(array)


def test_a_tensor_of_4_gib_is_refused_before_it_takes_memory() -> None:
    """MessagePack cannot frame 2^32 bytes; the refusal does not first make a copy of the array."""
    huge = np.broadcast_to(np.uint8(0), (2**32,))  # one byte of memory
    tracemalloc.start()
    with pytest.raises(TooLarge) as caught:
        document(huge)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert caught.value.values == {"tensor": "0", "limit": 2**32 - 1, "got": 2**32}
