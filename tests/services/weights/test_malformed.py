"""Documents that are not weights: each is refused by name, at once, and with little memory."""

from __future__ import annotations

import gc
import struct
import time
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import MalformedUpdate
from services.weights.wire import DTYPES, MAX_TENSORS, decode
from tests.services.arrays import document, packed, sample, wire_tensor

TENSORS = b"\x81\xa7tensors"
FOUR_G = b"\xff\xff\xff\xff"
TWO_MILLION = 2_000_000
EXTENSION = msgpack.ExtType(5, b"x")

BOMBS: dict[str, bytes] = {
    "array of 4 G tensors": TENSORS + b"\xdd" + FOUR_G,
    "as many tensors as may be, none there": TENSORS + b"\xdd" + struct.pack(">I", MAX_TENSORS),
    "4 G metrics": b"\x81\xa7metrics\xdf" + FOUR_G,
    "4 G metadata": b"\x81\xa8metadata\xdf" + FOUR_G,
    "4 G entries": b"\xdf" + FOUR_G,
    "an array of 4 G": b"\xdd" + FOUR_G,
    "data of 4 GiB": TENSORS + b"\x91\x81\xa4data\xc6" + FOUR_G,
    "a name of 4 GiB": TENSORS + b"\x91\x81\xa4name\xdb" + FOUR_G,
    "a shape of 4 G": TENSORS + b"\x91\x81\xa5shape\xdd" + FOUR_G,
    "two million empty maps": TENSORS + b"\xdd" + struct.pack(">I", TWO_MILLION) + b"\x80" * TWO_MILLION,
    "two million extra groups": b"\x81\xa5extra\xdf" + struct.pack(">I", TWO_MILLION) + b"\xa0\x90" * TWO_MILLION,
    "two million empty maps as metadata": packed(metadata={"a": [{}] * TWO_MILLION}),
    "a million arrays in one another": b"\x91" * 1_000_000 + b"\x90",
    "a million arrays as a tensor": TENSORS + b"\x91" * 1_000_000 + b"\x90",
    "a million arrays under an unknown key": b"\x81\xa1x" + b"\x91" * 1_000_000 + b"\x90",
    "a million maps as metadata": b"\x81\xa8metadata" + b"\x81\xa1a" * 1_000_000 + b"\x80",
    "a million maps as a shape": TENSORS + b"\x91\x81\xa5shape" + b"\x81\xa1a" * 1_000_000 + b"\x80",
    "fifty megabytes and a byte": packed(wire_tensor(shape=[50 << 20], data=bytes(50 << 20))) + b"\0",
    "a shape far beyond its data": packed(wire_tensor(shape=[2**32, 2**31])),
}

UNREADABLE = "the body is not a weights document: ."  # and then the decoder's own words, which are not ours
MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", UNREADABLE),
    "JSON": (b'{"tensors": []}', UNREADABLE),
    "nil": (b"\xc0", UNREADABLE),
    "no tensors": (msgpack.packb({}), UNREADABLE),
    "an unknown key": (packed(weights=[]), UNREADABLE),
    "trailing bytes": (packed(wire_tensor()) + b"\0", UNREADABLE),
    "truncated": (packed(wire_tensor())[:-1], UNREADABLE),
    "two of one name": (packed(wire_tensor(), wire_tensor()), "two tensors are called 'a'"),
    "two of one name in extra": (packed(extra={"c": [wire_tensor(), wire_tensor()]}), "two tensors are called 'a'"),
    "a tensor that is none": (packed(extra={"c": [5]}), UNREADABLE),
    "an unknown key of a tensor": (packed(wire_tensor(order="F")), UNREADABLE),
    "a tensor without data": (packed(wire_tensor(data=None)), UNREADABLE),
    "a tensor without name": (packed(wire_tensor(name=None)), UNREADABLE),
    "a name that is bytes": (packed(wire_tensor(name=b"a")), UNREADABLE),
    "a name that is not UTF-8": (TENSORS + b"\x91\x81\xa4name\xa1\xff", UNREADABLE),
    "a name of 513": (packed(wire_tensor(name="x" * 513)), UNREADABLE),
    "an extension": (packed(wire_tensor(data=EXTENSION)), UNREADABLE),
    "an extension as an unknown key's value": (packed(x=EXTENSION), UNREADABLE),
    "a time as metadata": (packed(metadata={"at": msgpack.Timestamp(1)}), UNREADABLE),
    "data that is text": (packed(wire_tensor(data="x")), UNREADABLE),
    "data too short": (packed(wire_tensor(dtype="float32")), r"shape \[1\] of float32 needs 4 bytes, data has 1"),
    "data too long": (packed(wire_tensor(data=b"abc")), "needs 1 bytes, data has 3"),
    "a negative dimension": (packed(wire_tensor(shape=[-1])), UNREADABLE),
    "a dimension that is true": (packed(wire_tensor(shape=[True])), UNREADABLE),
    "a dimension that is no integer": (packed(wire_tensor(shape=[1.0])), UNREADABLE),
    "33 dimensions": (packed(wire_tensor(shape=[1] * 33)), UNREADABLE),
    "a shape that overflows": (packed(wire_tensor(shape=[2**32, 2**32])), "needs 18446744073709551616 bytes"),
    "an empty shape that overflows": (packed(wire_tensor(shape=[0, 2**40, 2**40], data=b"")), "tensor 'a': shape"),
    "a dimension beyond 2^63": (packed(wire_tensor(shape=[0, 2**63], data=b"")), "tensor 'a': shape"),
    "a bool that is 2": (packed(wire_tensor(dtype="bool", data=b"\2")), "a bool is the byte 0 or 1"),
    "a trainable that is 1": (packed(wire_tensor(trainable=1)), UNREADABLE),
    "a pad of 5000": (packed(wire_tensor(pad=bytes(5000))), UNREADABLE),
    "a metric that is NaN": (packed(metrics={"loss": float("nan")}), "metric 'loss' is not finite"),
    "a metric that is infinite": (packed(metrics={"loss": float("inf")}), "metric 'loss' is not finite"),
    "a metric that is true": (packed(metrics={"ok": True}), UNREADABLE),
    "a metric that is text": (packed(metrics={"ok": "0.5"}), UNREADABLE),
    "metadata that is a list": (packed(metadata={"a": [1]}), UNREADABLE),
    "metadata by number": (packed(metadata={1: 1}), UNREADABLE),
    "1001 metadata": (packed(metadata={str(i): i for i in range(1001)}), UNREADABLE),
    "65 extra groups": (packed(extra={str(i): [] for i in range(65)}), UNREADABLE),
}


AT_THE_LIMIT: dict[str, bytes] = {  # each a step from one above that is refused: it was not for anything else
    "a tensor and all there may be": packed(
        wire_tensor(), metrics={"ok": 0.5, "none": None}, metadata={"a": True, "b": "c"}, extra={"c": [wire_tensor()]}
    ),
    "a name of 512": packed(wire_tensor(name="x" * 512)),
    "32 dimensions": packed(wire_tensor(shape=[1] * 32)),
    "a pad of 4096": packed(wire_tensor(pad=bytes(4096))),
    "a trainable that is false": packed(wire_tensor(trainable=False)),
    "1000 metadata": packed(metadata={str(i): i for i in range(1000)}),
    "64 extra groups": packed(extra={str(i): [] for i in range(64)}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_with_little_memory(name: str) -> None:
    """What claims, or is, far more than a model is refused in under 50 ms and in a fraction of the body's memory."""
    body = BOMBS[name]
    fastest = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        with pytest.raises(MalformedUpdate):
            decode(body)
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 0.05
    assert allocated_by_refusing(body) < 100_000


def allocated_by_refusing(body: bytes) -> int:
    """Bytes allocated at the most while `body` is refused."""
    gc.collect()
    tracemalloc.start()
    with pytest.raises(MalformedUpdate):
        decode(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_document_is_refused_saying_what_was_wrong(name: str) -> None:
    """Each is a MalformedUpdate whose sentence names what is wrong."""
    body, says = MALFORMED[name]
    with pytest.raises(MalformedUpdate, match=says):
        decode(body)


@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_what_is_just_within_the_limits_is_a_document(name: str) -> None:
    """The largest that is taken, of all that has a limit."""
    assert decodes(AT_THE_LIMIT[name])


@pytest.mark.parametrize(
    "dtype", ["object", "O", "str", "<U4", "S1", ">f4", "<f4", "f4", "complex64", "datetime64[s]", "float8_e5m2", ""]
)
def test_a_dtype_outside_the_contract_is_refused(dtype: str) -> None:
    """Objects, strings, other byte orders and numpy's codes are no dtype names; the tensor and the name are told."""
    with pytest.raises(MalformedUpdate, match=f"tensor 'a' has dtype '{dtype}'".replace("[s]", r"\[s\]")):
        decode(packed(wire_tensor(dtype=dtype)))


def test_the_values_of_a_wrong_length_are_told() -> None:
    """A program can read which tensor, how many bytes were expected and how many came."""
    with pytest.raises(MalformedUpdate) as caught:
        decode(packed(wire_tensor(name="w", shape=[2, 3], dtype="float64")))
    assert caught.value.values == {"tensor": "w", "expected": 48, "got": 1}


def test_a_whole_number_as_a_metric_is_a_number() -> None:
    """An integer is a finite metric and is read as a float."""
    assert decode(packed(metrics={"correct": 7, "none": None})).metrics == {"correct": 7.0, "none": None}


def test_an_empty_tensor_may_have_any_dtype() -> None:
    """No bytes are a correct body of a shape with a zero in it."""
    for dtype in DTYPES:
        (array,) = decode(packed(wire_tensor(dtype=dtype, shape=[0, 7], data=b""))).arrays
        assert (array.shape, array.dtype) == ((0, 7), DTYPES[dtype])


def decodes(body: bytes) -> bool:
    """Whether `body` is a document; any other error than MalformedUpdate fails the test."""
    try:
        decode(body)
    except MalformedUpdate:
        return False
    return True


@given(st.binary(max_size=300))
def test_any_bytes_are_a_document_or_malformed(body: bytes) -> None:
    """Noise never raises anything else."""
    decodes(body)


GOOD = document(sample("float32"), sample("bool", (3,)), metrics={"loss": 1.0}, metadata={"n": 3})


@given(at=st.integers(0, len(GOOD) - 1), octet=st.integers(0, 255))
def test_a_document_with_one_wrong_byte_is_a_document_or_malformed(at: int, octet: int) -> None:
    """A flipped byte gives other values or a refusal, never another error or a non-finite metric."""
    body = GOOD[:at] + bytes([octet]) + GOOD[at + 1 :]
    if decodes(body):
        assert all(value is None or np.isfinite(value) for value in decode(body).metrics.values())


@given(st.integers(0, len(GOOD) - 1))
def test_a_document_cut_anywhere_is_malformed(end: int) -> None:
    """Half a document is never taken for a whole one."""
    assert not decodes(GOOD[:end])


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=4),
    max_leaves=12,
)


@given(changes=st.dictionaries(st.sampled_from(["name", "dtype", "shape", "data", "pad", "trainable"]), JSON_LIKE))
def test_a_tensor_of_other_types_is_a_document_or_malformed(changes: dict[str, Any]) -> None:
    """Whatever stands in place of a tensor's entries, nothing but MalformedUpdate is raised."""
    decodes(packed(wire_tensor(**changes)))
