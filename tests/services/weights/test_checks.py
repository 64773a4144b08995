"""Checks of a decoded update against the round's model: names, dtypes, shapes, finite values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidUpdate, MalformedUpdate, NonFiniteUpdate, ShapeMismatch
from services.weights import BLOCK, DTYPES, Spec, Tensor, check_distance, check_finite, check_metadata
from services.weights.checks import ORDINARY
from tests.services.arrays import sample

MODEL = (Tensor("w", sample("float32")), Tensor("steps", np.array(3)))
SPEC = Spec.of(MODEL)


def test_an_update_like_the_model_passes() -> None:
    """Other values, and another trainable flag, of the same names, dtypes and shapes are an update of the model."""
    SPEC.check((Tensor("w", np.ones((2, 3), np.float32), trainable=False), Tensor("steps", np.array(9))))


WRONG: dict[str, tuple[Sequence[Tensor], str, dict[str, object]]] = {
    "name": (
        (Tensor("v", MODEL[0].array), MODEL[1]),
        "tensor 'w': expected name w, got v",
        {"tensor": "w", "expected": "w", "got": "v"},
    ),
    "dtype": (
        (Tensor("w", sample("float64")), MODEL[1]),
        "tensor 'w': expected dtype float32, got float64",
        {"tensor": "w", "expected": "float32", "got": "float64"},
    ),
    "shape": (
        (Tensor("w", sample("float32", (3, 2))), MODEL[1]),
        "tensor 'w': expected shape [2, 3], got [3, 2]",
        {"tensor": "w", "expected": [2, 3], "got": [3, 2]},
    ),
    "a dimension more": (
        (MODEL[0], Tensor("steps", np.array([3]))),
        "tensor 'steps': expected shape [], got [1]",
        {"tensor": "steps", "expected": [], "got": [1]},
    ),
    "order": (
        MODEL[::-1],
        "tensor 'w': expected name w, got steps",
        {"tensor": "w", "expected": "w", "got": "steps"},
    ),
    "one missing": (
        MODEL[:1],
        "expected 2 tensors, got 1: 'steps' is missing",
        {"tensor": "steps", "expected": 2, "got": 1},
    ),
    "one too many": (
        (*MODEL, Tensor("bias", np.zeros(1))),
        "expected 2 tensors, got 3: 'bias' is not of the model",
        {"tensor": "bias", "expected": 2, "got": 3},
    ),
    "none": ((), "expected 2 tensors, got 0: 'w' is missing", {"tensor": "w", "expected": 2, "got": 0}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mismatch_names_the_tensor_and_what_was_expected(name: str) -> None:
    """The first tensor that differs is named, with what was expected and what came, in words and as values."""
    tensors, detail, values = WRONG[name]
    with pytest.raises(ShapeMismatch) as caught:
        SPEC.check(tensors)
    assert (caught.value.detail, caught.value.values) == (detail, values)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 4])
def test_a_single_value_that_is_not_finite_is_found(dtype: str, value: float, at: int) -> None:
    """NaN and infinities are found in every floating dtype and in every block, and the tensor is named."""
    array = np.zeros(2 * BLOCK + 5, DTYPES[dtype])
    check_finite([Tensor("w", array)])
    array[at] = value
    with pytest.raises(NonFiniteUpdate, match="tensor 'w' holds NaN or infinity") as caught:
        check_finite([Tensor("fine", np.zeros(2)), Tensor("w", array)])
    assert caught.value.values == {"tensor": "w"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_values_are_finite(dtype: str) -> None:
    """Every dtype's ordinary values pass, 0-d and empty tensors too."""
    check_finite([Tensor("0-d", sample(dtype, ())), Tensor("empty", sample(dtype, (0,))), Tensor("w", sample(dtype))])
    if np.dtype(DTYPES[dtype]).kind == "f" and dtype != "bfloat16":
        check_finite([Tensor("w", np.array([np.finfo(dtype).max, np.finfo(dtype).min]))])


def test_metadata_must_be_what_json_carries_on() -> None:
    """A number that is not finite is refused by its key; everything else passes."""
    check_metadata({"n": 5, "lr": 0.1, "big": 2**60, "name": "nan", "none": None, "ok": True})
    with pytest.raises(MalformedUpdate, match=r"metadata\['lr'\] is not finite"):
        check_metadata({"n": 5, "lr": float("nan")})


# ---- how far from the model
FLOATING = [name for name, dtype in DTYPES.items() if dtype.kind not in "iub"]
LIMITS = {"float64": 1e150, "float32": 1e18, "bfloat16": 1e18}


def one(dtype: str, *values: float) -> tuple[Tensor, ...]:
    """A counter, which may be any number, and a tensor of these values."""
    with np.errstate(over="ignore"):
        return (Tensor("n", np.array(2**62)), Tensor("w", np.array(values, np.float64).astype(DTYPES[dtype])))


@pytest.mark.parametrize(("dtype", "limit"), LIMITS.items())
def test_a_tensor_that_is_absurdly_far_is_named(dtype: str, limit: float) -> None:
    """With the limit of its dtype and its own norm, of all its values: √2 · 0.8 of the limit is more than that."""
    model = one(dtype, 0.0, 0.0)
    check_distance(one(dtype, 0.8 * limit, 0.0), model)
    check_distance(one(dtype, 0.8 * limit, 0.8 * limit), one(dtype, 0.8 * limit, 0.0))
    with pytest.raises(
        InvalidUpdate, match=r"tensor 'w' is 1.13e\+\d+ \(L2 norm\) away from the round's model"
    ) as caught:
        check_distance(one(dtype, 0.8 * limit, -0.8 * limit), model)
    assert (caught.value.values["tensor"], caught.value.values["limit"]) == ("w", limit)
    assert caught.value.values["got"] == pytest.approx(0.8 * limit * math.sqrt(2), rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_numbers_have_a_finite_distance(dtype: str) -> None:
    """From one end of the floats to the other, in many blocks: refused, with a number that JSON can carry."""
    most = float(np.finfo(dtype).max)
    new, old = np.full(2 * BLOCK + 1, most, dtype), np.full(2 * BLOCK + 1, -most, dtype)
    with pytest.raises(InvalidUpdate) as caught:
        check_distance([Tensor("w", new)], [Tensor("w", old)])
    assert math.isfinite(caught.value.values["got"])
    check_distance([Tensor("w", new)], [Tensor("w", new)])


def test_half_precision_and_whole_numbers_are_never_far() -> None:
    """They hold no such numbers; infinity in them is another check's."""
    check_distance([Tensor("h", np.full(100, 65504, np.float16)), Tensor("n", np.array([2**63], np.uint64))])


VALUES = st.one_of(
    st.floats(-1e12, 1e12), st.floats(-1e21, 1e21), st.sampled_from([0.0, 1e17, -9.9e17, 1e18, 1.1e18, -3e38])
)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20), st.sampled_from(["float32", "float64"]))
def test_distance_by_its_definition(pairs: list[tuple[float, float]], dtype: str) -> None:
    """As exact arithmetic has it; and where both are of an ordinary size it need not be worked out."""
    new, old = (np.array(column).astype(dtype) for column in zip(*pairs, strict=True))
    squares = sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(new, old, strict=True))
    limit = Fraction(LIMITS[dtype])
    ordinary = check_finite([Tensor("w", new)]) and check_finite([Tensor("w", old)])
    if abs(squares / limit**2 - 1) < Fraction(1, 10**9):
        return  # too near to tell in float64
    try:
        check_distance([Tensor("w", new)], [Tensor("w", old)])
        assert squares < limit**2
    except InvalidUpdate:
        assert squares > limit**2
        assert not ordinary


@pytest.mark.parametrize("name", FLOATING)
def test_what_is_of_an_ordinary_size(name: str) -> None:
    """Finite numbers up to 10^12, on either side of 0, in any block; larger ones are finite all the same."""
    tensors = [Tensor("a", np.zeros(BLOCK + 3, DTYPES[name])), Tensor("b", np.zeros(3, DTYPES[name]))]
    assert check_finite(tensors)
    for tensor in tensors:
        for value in (9e11, -9e11, 2e12, -2e12):
            if abs(value) < 1e12 or name != "float16":
                tensor.array[-1] = value if name != "float16" else 60_000.0
                assert check_finite(tensors) == (abs(value) < 1e12)
        tensor.array[-1] = 0


def test_every_tensor_of_ordinary_numbers_lies_within_the_limit() -> None:
    """The largest tensor that a document holds, 4 GiB, of the largest differences that two ordinary numbers have."""
    for size, limit in ((4, 1e18), (2, 1e18), (8, 1e150)):
        assert 2 * ORDINARY * math.sqrt(2**32 / size) < limit
