"""Coded tensors that lie: each is refused by its name, before there is room for what it claims."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.encoding import CODECS, Sender, decode_model, decode_update, encode_model
from services.errors import InvalidUpdate, MalformedUpdate, ShapeMismatch
from services.weights import PLAIN, Array, Document, Spec, Tensor, wire
from tests.services.arrays import packed
from tests.services.encoding.test_updates import BASE, COUNT, MODEL, SPEC, received, trained


def decoded(body: bytes, spec: Spec = SPEC, base: Sequence[Array] = BASE) -> Document:
    """What the controller makes of an update."""
    return decode_update(wire.parse(body, spec=spec), body, tuple(CODECS), base)[0]


def plain(tensor: Tensor, **changes: Any) -> dict[str, Any]:
    """A tensor as a map, with some entries changed; None takes an entry out."""
    whole = {"name": tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape), **changes}
    whole.setdefault("data", tensor.array.tobytes())
    return {key: value for key, value in whole.items() if value is not None}


def sparse(*indices: int, data: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """A sparse "w"."""
    where = np.array(indices, "<u4").tobytes()
    values = np.ones(len(indices), "<f4").tobytes() if data is None else data
    return {"encoding": "topk", "delta": True, "indices": where, "data": values, **changes}


INT8: dict[str, Any] = {"encoding": "int8", "delta": True, "data": bytes(COUNT), "scale": 1.0}
LIES: dict[str, dict[str, Any]] = {
    "an unknown encoding": {"encoding": "gzip"},
    "an encoding without end": {"encoding": "x" * 100},
    "too few bytes of bf16": {"encoding": "bf16", "data": bytes(2 * COUNT - 2)},
    "the bytes of float32 as bf16": {"encoding": "bf16"},
    "a difference of too few bytes": {"delta": True, "data": bytes(4 * COUNT - 4)},
    "too many bytes of int8": INT8 | {"data": bytes(COUNT + 1)},
    "no scale": INT8 | {"scale": None},
    "a scale of NaN": INT8 | {"scale": float("nan")},
    "an infinite scale": INT8 | {"scale": float("inf")},
    "a negative scale": INT8 | {"scale": -1.0},
    "a scale of zero": INT8 | {"scale": 0.0},
    "a scale below float32's": INT8 | {"scale": 1e-300},
    "a scale above float32's": INT8 | {"scale": 1e300},
    "a scale that is text": INT8 | {"scale": "1"},
    "a scale of a plain tensor": {"scale": 1.0},
    "a scale of bf16": {"encoding": "bf16", "data": bytes(2 * COUNT), "scale": 1.0},
    "indices of a plain tensor": {"indices": b""},
    "indices of int8": INT8 | {"indices": b"\0\0\0\0"},
    "no indices": sparse(1, indices=None),
    "half an index": sparse(1, indices=b"\0\0"),
    "fewer values than indices": sparse(1, 2, data=bytes(4)),
    "more values than indices": sparse(1, 2, data=bytes(12)),
    "an index out of range": sparse(1, COUNT),
    "the last index there can be": sparse(2**32 - 1),
    "an index twice": sparse(1, 1),
    "indices that descend": sparse(2, 1),
    "sparse values of no model": sparse(1, delta=False),
    "more indices than elements": sparse(*range(COUNT), COUNT - 1),
    "indices that are numbers": sparse(1, indices=[1]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_coded_tensor_that_cannot_be_is_refused(lie: str) -> None:
    """422, and the tensor is named, where there is one."""
    body = packed(plain(MODEL[0], **LIES[lie]), plain(MODEL[1]), plain(MODEL[2]))
    with pytest.raises(MalformedUpdate) as refused:
        decoded(body)
    assert "'w'" in refused.value.detail or refused.value.detail.startswith("the body is not a weights document: ")


@pytest.mark.parametrize("encoding", CODECS)
def test_only_floats_are_coded(encoding: str) -> None:
    """Whole numbers travel as they are, in every encoding."""
    changes: dict[str, Any] = {"encoding": encoding, "delta": True, "data": bytes(8)}
    with pytest.raises(MalformedUpdate, match=r"'steps': int64 travels as it is"):
        decoded(packed(plain(MODEL[0]), plain(MODEL[1], **changes), plain(MODEL[2])))


def test_only_the_encoding_of_the_task_is_taken() -> None:
    """A task that asks for bf16 takes no int8, and one that asks for none takes nothing coded at all."""
    update = Sender("int8").code(trained(1), MODEL)
    with pytest.raises(MalformedUpdate, match=r"'w': encoding 'int8' is not taken here; taken: bf16, none"):
        received(update, takes=("bf16", PLAIN))
    with pytest.raises(MalformedUpdate, match=r"'w' is coded as 'int8'; here tensors travel as they are"):
        received(update, takes=())
    with pytest.raises(MalformedUpdate, match=r"'w' is a difference; here tensors travel as they are"):
        received(Sender(PLAIN).code(trained(1, encode_model(MODEL, "int8")), encode_model(MODEL, "int8")), takes=())


def test_extra_lists_are_plain() -> None:
    """What travels beside the model has no model to differ from."""
    whole = [plain(tensor) for tensor in MODEL]
    with pytest.raises(MalformedUpdate, match="'w' is coded as 'int8'"):
        decoded(packed(*whole, extra={"x": [plain(MODEL[0], **INT8)]}))


@pytest.mark.parametrize(
    "changes",
    [
        sparse(1, shape=[2**40]),
        sparse(1, shape=[2**31, 2**31]),
        sparse(1, shape=[COUNT], name="other"),
        INT8 | {"shape": [COUNT * 4]},
        INT8 | {"dtype": "float64"},
    ],
    ids=str,
)
def test_nothing_is_allocated_for_a_tensor_that_is_not_the_models(changes: dict[str, Any]) -> None:
    """A few bytes that claim to be terabytes are refused before room for them is made."""
    body = packed(plain(MODEL[0], **changes), plain(MODEL[1]), plain(MODEL[2]))
    tracemalloc.start()
    try:
        with pytest.raises(ShapeMismatch):
            decoded(body)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "changes", [sparse(1), INT8, {"encoding": "topk", "data": b"", "indices": b""}, {"delta": True}]
)
def test_a_model_stands_by_itself(changes: dict[str, Any]) -> None:
    """A learner refuses a model that is a difference to another."""
    with pytest.raises(MalformedUpdate, match="'w'"):
        decode_model(wire.parse(packed(plain(MODEL[0], **changes))))


@given(octets=st.binary(max_size=60), encoding=st.sampled_from([*CODECS, "?"]), data=st.data())
def test_any_bytes_are_restored_or_refused(octets: bytes, encoding: str, data: st.DataObject) -> None:
    """No other error than InvalidUpdate, whatever is in the entries."""
    changes: dict[str, Any] = {
        "encoding": encoding,
        "shape": data.draw(st.lists(st.integers(0, 2**33), max_size=3)),
        "dtype": data.draw(st.sampled_from(["float16", "bfloat16", "float32", "float64", "int8"])),
        "delta": data.draw(st.booleans()),
        "scale": data.draw(st.none() | st.floats()),
        "indices": data.draw(st.none() | st.binary(max_size=24)),
        "data": octets,
    }
    shape, dtype = tuple(changes["shape"]), wire.DTYPES[changes["dtype"]]
    count = int(np.prod(shape, dtype=object))
    base = np.ones(shape if count <= 1000 >= max(shape, default=0) else (1,), dtype)
    spec = Spec((("w", dtype, base.shape),))
    try:
        document = decoded(packed(plain(MODEL[0], **changes)), spec, [np.ones(1) if base is None else base])
    except InvalidUpdate:
        return
    assert document.arrays[0].shape == shape
