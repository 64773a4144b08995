"""Codecs: numbers worked out by hand, errors within the bounds that docs/protocol.md states."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import Encoding
from services.encoding import CODECS, OF_MODELS, decode_model, encode_model
from services.encoding.base import Values, working
from services.encoding.codecs import coded, restore
from services.encoding.topk import TopK
from services.weights import Array, Tensor
from services.weights.wire import DTYPES, Coded, encode, parse
from tests.services.arrays import joined, read_plainly

FLOATS = ["float16", "bfloat16", "float32", "float64"]
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 0.0}
LARGE = 300  # elements: enough to be worth coding in every float dtype


def there(array: Array, encoding: str, base: Array | None = None) -> Coded:
    """The array as it travels, its difference to `base` where there is one."""
    payload = CODECS[encoding].encode(Values(array, base))
    assert payload is not None
    return coded(Tensor("w", array), encoding, payload, delta=base is not None)


def and_back(array: Array, encoding: str, base: Array | None = None) -> Array:
    """The array after a journey."""
    found = np.empty_like(array)
    restore(there(array, encoding, base), base, found)
    return found


def floats(*values: float) -> Array:
    """A float32 array."""
    return np.array(values, np.float32)


def test_the_names_are_those_of_the_configuration() -> None:
    """What a run may ask for is what there are codecs for."""
    offered = {key: set(Encoding.model_json_schema()["properties"][key]["enum"]) for key in ("up", "down")}
    assert offered == {"up": set(CODECS), "down": {"none", *OF_MODELS}}


# ---- by hand
def test_bf16_rounds_to_nearest_ties_to_even() -> None:
    """1 + 2^-8 lies between 1 and 1 + 2^-7 and goes to the even 1; 1 + 3·2^-8 to 1 + 2^-6; pi to 0x4049."""
    array = floats(1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, math.pi, -math.pi)
    sent = there(array, "bf16")
    assert np.frombuffer(sent.data, "<u2").tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x4049, 0xC049]
    assert and_back(array, "bf16").tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, 3.140625, -3.140625]


def test_int8_is_the_nearest_multiple_of_the_scale() -> None:
    """Largest magnitude 63.5, so a scale of 0.5; a tie goes to the even multiple."""
    array = floats(63.5, -63.5, 0.25, 0.75, -0.75, 1.1, 0)
    sent = there(array, "int8")
    assert (sent.scale, np.frombuffer(sent.data, "i1").tolist()) == (0.5, [127, -127, 0, 2, -2, 2, 0])
    assert and_back(array, "int8").tolist() == [63.5, -63.5, 0, 1, -1, 1, 0]


def test_int8_of_zeros_is_zeros() -> None:
    """Where all is zero any scale does; it is 1."""
    assert there(floats(0, -0.0), "int8").scale == 1
    assert and_back(floats(0, -0.0), "int8").tolist() == [0, 0]


def test_topk_takes_the_largest_magnitudes_ties_by_the_lower_index() -> None:
    """A half of six elements: both fives, and of the threes the first."""
    payload = TopK(0.5).encode(Values(floats(3, -5, 0.5, 5, -3, 0)))
    assert payload is not None
    assert payload.indices is not None
    assert (payload.indices.dtype, payload.indices.tolist()) == (np.dtype("<u4"), [0, 1, 3])
    assert payload.data.tolist() == [3, -5, 5]


@pytest.mark.parametrize(
    ("ratio", "size", "count"), [(0.01, 300, 3), (0.01, 301, 4), (0.07, 100, 7), (0.001, 10, 1), (1.0, 5, 5)]
)
def test_topk_sends_the_ratio_rounded_up(ratio: float, size: int, count: int) -> None:
    """ceil(ratio · n), at least one; 0.07 · 100 is 7, whatever floating point makes of it."""
    payload = TopK(ratio).encode(Values(np.arange(1, size + 1, dtype=np.float32)))
    assert payload is not None
    assert payload.data.tolist() == list(range(size - count + 1, size + 1))


def test_topk_does_not_send_zeros() -> None:
    """A learner that changed one element sends one, whatever the ratio."""
    base = np.zeros(1000, np.float32)
    changed = base.copy()
    changed[7] = 2
    sent = there(changed, "topk", base)
    assert sent.indices is not None
    assert (np.frombuffer(sent.indices, "<u4").tolist(), np.frombuffer(sent.data, "<f4").tolist()) == ([7], [2])
    assert there(base, "topk", base).data.nbytes == 0
    assert and_back(base, "topk", base).tolist() == base.tolist()


def test_a_difference_is_added_to_the_model() -> None:
    """Each codec: what arrives is the model and the difference, whose form is exact here."""
    base, trained = floats(1, 2, 3, 4), floats(1, 2.5, 3, 3)
    for encoding in ("none", "bf16", "topk"):
        expected = floats(1, 2, 3, 3) if encoding == "topk" else trained  # one of four: the largest
        assert and_back(trained, encoding, base).tolist() == expected.tolist()
    assert and_back(floats(1, 2 + 1 / 127, 3, 3), "int8", base) == pytest.approx([1, 2 + 1 / 127, 3, 3], abs=1e-6)


def test_a_coded_tensor_is_a_map_that_any_library_reads() -> None:
    """Name, dtype and shape are those of the tensor that it stands for; what is not needed is left out."""
    array = np.full((2, 150), 0.5, np.float32)
    array[0, 0] = 63.5
    tensors = [Tensor("w", array), Tensor("fixed", array, False)]
    whole, fixed = read_plainly(joined(encode(encode_model(tensors, "int8"))))["tensors"]
    data = bytes([127, *[1] * 299])
    said = {"name": "w", "dtype": "float32", "shape": [2, 150], "encoding": "int8", "scale": 0.5, "data": data}
    assert whole == said
    assert fixed.keys() == {"name", "dtype", "shape", "trainable", "data"}
    update = read_plainly(joined(encode([there(floats(1, 9), "topk", floats(1, 2))])))["tensors"][0]
    assert update == {
        "name": "w",
        "dtype": "float32",
        "shape": [2],
        "encoding": "topk",
        "delta": True,
        "indices": b"\1\0\0\0",
        "data": np.float32(7).tobytes(),
    }


# ---- bounds
@st.composite
def arrays(draw: st.DrawFn, dtype: str) -> Array:
    """Finite numbers of a float dtype, of all magnitudes or of one."""
    count = draw(st.integers(1, 40))
    bits = np.frombuffer(draw(st.binary(min_size=8 * count, max_size=8 * count)), np.uint8)
    made: Any = bits[: count * DTYPES[dtype].itemsize].view(DTYPES[dtype]).copy()
    with np.errstate(invalid="ignore"):  # signalling NaNs
        made[~np.isfinite(made)] = 1
    small = (np.arange(count) % 7 - 3) * draw(st.floats(1e-3, 1e3))
    return made if draw(st.booleans()) else small.astype(DTYPES[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_bf16_errs_by_a_256th_at_most(dtype: str, data: st.DataObject) -> None:
    """2^-8 of each number, or 2^-133 where that is more; numbers of 16 bits, and what is too large, stay."""
    array = data.draw(arrays(dtype))
    payload = CODECS["bf16"].encode(Values(array))
    exact = array.astype(np.float64)
    if payload is None:
        assert array.itemsize == 2 or np.abs(exact).max() > float.fromhex("0x1.fep127")
        return
    error = np.abs(and_back(array, "bf16").astype(np.float64) - exact)
    assert (error <= np.maximum(2.0**-8 * np.abs(exact), 2.0**-133)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_int8_errs_by_half_a_scale_at_most(dtype: str, data: st.DataObject) -> None:
    """Half a scale (a hundred-thousandth more by rounding the quotient), and the rounding to the tensor's dtype."""
    array = data.draw(arrays(dtype))
    payload = CODECS["int8"].encode(Values(array))
    exact = array.astype(np.float64)
    largest = np.abs(exact).max()
    if payload is None:  # the scale would not be a normal float32
        assert not 127 * 2.0**-126 <= largest < 127 * 2.0**127
        return
    assert payload.scale is not None
    assert payload.scale == (pytest.approx(largest / 127, rel=2**-24) if largest else 1)
    found = and_back(array, "int8").astype(np.float64)
    rounding = ROUNDOFF[dtype] * np.abs(found) + SMALLEST[dtype]
    assert (np.abs(found - exact) <= 0.50001 * payload.scale + rounding).all()


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_topk_leaves_the_rest_of_the_model_alone(dtype: str, data: st.DataObject) -> None:
    """What is not sent keeps the model's value; of what is sent no magnitude is below one that is not."""
    base = np.linspace(-2, 2, 40).astype(DTYPES[dtype])
    change = (np.array(data.draw(st.lists(st.integers(-50, 50), min_size=40, max_size=40))) / 16).astype(DTYPES[dtype])
    trained = (base + change).astype(DTYPES[dtype])
    payload = TopK(0.2).encode(Values(trained, base))
    assert payload is not None
    assert payload.indices is not None
    found = np.empty_like(base)
    restore(coded(Tensor("w", trained), "topk", payload, delta=True), base, found)
    left = np.setdiff1d(np.arange(40), payload.indices)
    assert found[left].tolist() == base[left].tolist()
    step = np.abs(trained.astype(working(trained.dtype)) - base.astype(working(trained.dtype)))
    assert len(payload.indices) == min(8, np.count_nonzero(step))
    assert step[payload.indices].min(initial=np.inf) >= step[left].max()
    assert found[payload.indices] == pytest.approx(trained[payload.indices].astype(np.float64), rel=2**-8)


@pytest.mark.parametrize("encoding", CODECS)
def test_a_tensor_of_many_blocks_is_coded_as_a_whole(encoding: str) -> None:
    """One scale, one choice of the largest, whatever the block size: checked against numpy on the whole tensor."""
    rng = np.random.default_rng(3)
    base = rng.standard_normal(200_001).astype(np.float32)
    trained = base + rng.standard_normal(200_001).astype(np.float32)
    step = trained - base
    largest = np.sort(np.argsort(-np.abs(step), kind="stable")[:2001])
    sparse = np.zeros_like(step)
    sparse[largest] = step[largest]
    scale = np.float32(np.abs(step).max() / 127)
    expected = {
        "none": base + step,
        "bf16": base + step.astype(ml_dtypes.bfloat16).astype(np.float32),
        "int8": base + np.rint(step / scale) * scale,
        "topk": base + sparse,
    }
    assert and_back(trained, encoding, base).tobytes() == expected[encoding].astype(np.float32).tobytes()


# ---- models
@pytest.mark.parametrize("encoding", OF_MODELS)
def test_only_large_trainable_floats_are_coded(encoding: str) -> None:
    """Whole numbers, buffers and what is smaller than 1 KiB travel as they are, bit for bit."""
    large = np.linspace(-1, 1, LARGE).astype(np.float32)
    whole = [
        Tensor("steps", np.arange(1000)),
        Tensor("variance", large, trainable=False),
        Tensor("bias", large[:255]),
        Tensor("mask", np.ones(2000, bool)),
    ]
    sent = parse(joined(encode(encode_model([Tensor("w", large), *whole], encoding))))
    assert [type(tensor) for tensor in sent.tensors] == [Coded, *[Tensor] * 4]
    back = decode_model(sent)
    assert [t.array.tobytes() for t in back.tensors[1:]] == [t.array.tobytes() for t in whole]
    assert [(t.name, t.shape, t.trainable) for t in back.tensors[:3]] == [
        ("w", (LARGE,), True),
        ("steps", (1000,), True),
        ("variance", (LARGE,), False),
    ]
    assert np.abs(back.arrays[0] - large).max() <= 1 / 254 + 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf, 3.4e38, 1e-44])
@pytest.mark.parametrize("encoding", OF_MODELS)
def test_what_cannot_be_coded_within_the_bound_travels_as_it_is(encoding: str, value: float) -> None:
    """No codec makes an infinity, hides a NaN, or uses a scale that is coarse itself."""
    array = np.full(LARGE, value, np.float32)
    (sent,) = encode_model([Tensor("w", array)], encoding)
    if isinstance(sent, Coded):
        fits = {("int8", 3.4e38), ("bf16", 1e-44)}
        assert (encoding, value) in fits
        assert np.isfinite(decode_model(parse(joined(encode([sent])))).arrays[0]).all()
    else:
        assert sent.array is array
