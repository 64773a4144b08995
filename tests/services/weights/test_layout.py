"""Documents laid out like the model: read without decoding, and with the same outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import FederationError, MalformedUpdate, NonFiniteUpdate
from services.weights import BLOCK, Layout, Tensor, check_finite, layout_of, wire

FLOATS = (Tensor("w", np.arange(6, dtype=np.float32).reshape(2, 3)), Tensor("b", np.ones(5, np.float32), False))
MIXED = (*FLOATS, Tensor("n", np.array(7, np.int64)), Tensor("h", np.ones(3, np.float16)))
SIZES = (3, 2 * BLOCK + 5, 1, BLOCK // 3, 7)  # of large and small tensors beside one another
LARGE = tuple(Tensor(f"t{i}", np.linspace(-1, 1, size, dtype=np.float32)) for i, size in enumerate(SIZES))
MODELS = pytest.mark.parametrize("tensors", [FLOATS, MIXED, LARGE], ids=["float32", "mixed", "large"])


def document(tensors: tuple[Tensor, ...], *rest: Any) -> bytearray:
    """As it is sent."""
    return bytearray(b"".join(bytes(part) for part in wire.encode(tensors, *rest)))


def layout(tensors: tuple[Tensor, ...]) -> Layout:
    """Made anew."""
    model = document(tensors)
    return Layout(wire.decode(model), memoryview(model))


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Names, flags, dtypes, shapes and bits."""
    return [(t.name, t.trainable, t.dtype, t.shape, t.array.tobytes()) for t in one] == [
        (t.name, t.trainable, t.dtype, t.shape, t.array.tobytes()) for t in other
    ]


@MODELS
def test_an_update_like_the_model_is_read_as_it_is_decoded(tensors: tuple[Tensor, ...]) -> None:
    """Other values, metrics, metadata and extra tensors: the same as from the decoder, in the document's own memory."""
    update = tuple(t._replace(array=t.array + t.array.dtype.type(1)) for t in tensors)
    body = document(update, {"loss": 0.5, "none": None}, {"examples": 3}, {"c": (Tensor("c", np.ones(2)),)})
    known, want = layout(tensors), wire.decode(body)
    assert known.fits(body)
    found, rest = known.take(body).tensors, known.take(body)
    assert same(found, want.tensors)
    assert (rest.metrics, rest.metadata) == (want.metrics, want.metadata)
    assert same(rest.extra["c"], want.extra["c"])
    assert all(np.shares_memory(t.array, np.frombuffer(body, np.uint8)) and not t.array.flags.writeable for t in found)


DIFFERENT = {
    "name": (FLOATS[0]._replace(name="v"), FLOATS[1]),
    "dtype": (FLOATS[0]._replace(array=FLOATS[0].array.astype(np.int32)), FLOATS[1]),
    "shape": (FLOATS[0]._replace(array=FLOATS[0].array.reshape(3, 2)), FLOATS[1]),
    "flag": (FLOATS[0], FLOATS[1]._replace(trainable=True)),
    "order": FLOATS[::-1],
    "fewer": FLOATS[:1],
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_anything_else_does_not_fit(what: str) -> None:
    """It is then decoded, which names what is wrong."""
    assert not layout(FLOATS).fits(document(DIFFERENT[what]))


@given(st.integers(0, 255), st.data())
def test_no_changed_byte_is_missed(value: int, data: st.DataObject) -> None:
    """Whatever byte is changed to whatever: what fits is read as it is decoded, or refused as it would be."""
    body = document(FLOATS, {"loss": 0.5}, {"examples": 3})
    body[data.draw(st.integers(0, len(body) - 1))] = value
    known = layout(FLOATS)
    if not known.fits(body):
        return
    try:
        want = wire.decode(body)
    except MalformedUpdate:
        with pytest.raises(MalformedUpdate):
            known.take(body)
        return
    rest = known.take(body)
    assert same(known.read(body), want.tensors)
    assert (rest.metrics, rest.metadata) == (want.metrics, want.metadata)


@given(st.integers(0, 3))
def test_a_cut_document_does_not_fit_or_is_refused(cut: int) -> None:
    """Also when only the end is missing, where the tensors are all there."""
    whole, known = document(FLOATS, {"loss": 0.5}), layout(FLOATS)
    for size in (known.size - cut - 1, len(whole) - cut - 1):
        body = whole[:size]
        if known.fits(body):
            with pytest.raises(MalformedUpdate):
                known.take(body)


@MODELS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_and_named(tensors: tuple[Tensor, ...], value: float) -> None:
    """In any place of any float tensor, as the plain check says it; a finite update passes."""
    known = layout(tensors)
    known.check_finite(document(tensors))
    for index, tensor in enumerate(tensors):
        if tensor.dtype.kind != "f":
            continue
        for place in (0, -1):
            array = tensor.array.copy()
            array.reshape(-1)[place] = value
            wrong = (*tensors[:index], tensor._replace(array=array), *tensors[index + 1 :])
            with pytest.raises(NonFiniteUpdate, match=repr(tensor.name)) as plain:
                check_finite(wrong)
            with pytest.raises(NonFiniteUpdate) as found:
                known.check_finite(document(wrong))
            assert found.value.detail == plain.value.detail


@MODELS
@pytest.mark.parametrize("value", [1.1e12, -1.1e12, 3e38])
def test_what_is_finite_and_of_no_ordinary_size_is_found(tensors: tuple[Tensor, ...], value: float) -> None:
    """In any place of any tensor that can hold it, as the plain check says it."""
    known = layout(tensors)
    assert known.check_finite(document(tensors))
    assert check_finite(tensors)
    for index, tensor in enumerate(tensors):
        for place in (0, -1) if tensor.dtype == np.float32 else ():
            array = tensor.array.copy()
            array.reshape(-1)[place] = value
            other = (*tensors[:index], tensor._replace(array=array), *tensors[index + 1 :])
            assert not known.check_finite(document(other))
            assert not check_finite(other)


def test_names_that_look_like_nan_are_no_values() -> None:
    """The bytes between the tensors are not taken for values, whatever they are."""
    name = "\u007f\u00ff" * 40  # as float32 words some of this is NaN
    tensors = tuple(Tensor(name + str(i), np.ones(1, np.float32)) for i in range(4))
    layout(tensors).check_finite(document(tensors))


UNUSUAL: dict[str, dict[str, Any]] = {
    "metrics first": {"metrics": {}, "tensors": [{"name": "w", "dtype": "float32", "shape": [1], "data": b"\0" * 4}]},
    "a key after the data": {"tensors": [{"name": "w", "dtype": "float32", "data": b"\0" * 4, "shape": [1]}]},
    "no tensors": {"tensors": []},
    "an empty tensor": {"tensors": [{"name": "w", "dtype": "float32", "shape": [0], "data": b""}]},
    "a bool, of which not every byte is one": {
        "tensors": [{"name": "w", "dtype": "bool", "shape": [1], "data": b"\0"}]
    },
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_unusual_models_are_always_decoded(what: str) -> None:
    """A document of another encoder, or with tensors that must be looked at: nothing fits it, and it is read right."""
    body = msgpack.packb(UNUSUAL[what])
    known = layout_of(body)
    assert not known.fits(body)
    assert same(known.read(body), wire.decode(body).tensors)


def test_an_unaligned_model_of_another_encoder_fits_and_is_made_anew_aligned() -> None:
    """Without `pad`: read in place all the same; the next model is what our encoder makes."""
    body = msgpack.packb({"tensors": [{"name": "w", "dtype": "float32", "shape": [2], "data": b"\0" * 8}]})
    known = layout_of(body)
    model = known.read(body)
    known.check_finite(body)
    room = bytearray(known.size_of(model))
    known.room(model, memoryview(room))[0].array[:] = 1
    assert room == document((Tensor("w", np.ones(2, np.float32)),))


@MODELS
def test_the_room_for_a_model_is_its_document(tensors: tuple[Tensor, ...]) -> None:
    """What is written into the arrays makes the very document that the encoder makes."""
    known = layout(tensors)
    buffer = bytearray(b"\xff" * known.size_of(tensors))
    for room, tensor in zip(known.room(tensors, memoryview(buffer)), tensors, strict=True):
        room.array[...] = tensor.array
    assert buffer == document(tensors)


def test_the_newest_layouts_are_found_again() -> None:
    """A model like one that was there before has its layout, the same object."""
    model = document(FLOATS)
    assert layout_of(model) is layout_of(document(FLOATS))
    with pytest.raises(FederationError):
        layout_of(b"\x81")


@given(
    st.lists(st.sampled_from([1, 3, 1000, BLOCK, 3 * BLOCK + 5]), min_size=1, max_size=4),
    st.sampled_from([0.0, 9e11, -9e11, 1.1e12, -1.1e12, 3e38, np.nan, np.inf, -np.inf]),
    st.floats(0, 1),
)
def test_one_pass_tells_what_is_of_an_ordinary_size(sizes: list[int], value: float, where: float) -> None:
    """Wherever a number stands, in blocks with and without words between, it is found; those words never are."""
    tensors = [Tensor(f"t{i}", np.zeros(size, np.float32)) for i, size in enumerate(sizes)]
    whole = sum(sizes)
    place = min(int(where * whole), whole - 1)
    known = layout(tuple(tensors))
    for tensor in tensors:
        if 0 <= place < tensor.array.size:
            tensor.array[place] = value
        place -= tensor.array.size
    body = document(tuple(tensors), {"loss": 1e30})
    assert known.fits(body)
    if not np.isfinite(value):
        with pytest.raises(NonFiniteUpdate):
            known.check_finite(body)
    else:
        assert known.check_finite(body) == known._are_ordinary(body) == check_finite(tensors) == (abs(value) <= 1e12)
