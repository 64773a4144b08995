"""Checks of a decoded update against the round's model: names, dtypes, shapes, finite values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from services.errors import MalformedUpdate, NonFiniteUpdate, ShapeMismatch
from services.weights import BLOCK, DTYPES, Spec, Tensor, check_finite, check_metadata
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
