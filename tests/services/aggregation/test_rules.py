"""Laws of every aggregation rule in the registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.aggregation import RULES, Aggregator, View, min_updates
from services.weights import DTYPES
from tests.services.arrays import Array, any_array

SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (2, 3), (4, 0)]
MADE: dict[str, Callable[[], Aggregator]] = {  # rules that need parameters
    "Krum": partial(RULES["Krum"], num_byzantine=1),
    "MultiKrum": partial(RULES["MultiKrum"], num_byzantine=1),
    "Bulyan": partial(RULES["Bulyan"], num_byzantine=1),
    "FedStride": partial(RULES["FedStride"], stride_length=2),
    "QFedAvg": partial(RULES["QFedAvg"], q=1, learning_rate=0.5),
}
FACTORS = [3, 1, 2, 5, 4, 7, 6]
SHORTER = ("QFedAvg", "FedAsync", "FedBuff")  # a single update is not the next model
TOLD: dict[str, Any] = {  # what rules read of it
    "metrics": {"loss_before_training": 1.5},
    "metadata": {"num_completed_batches": 8},
}
IN_PLACE = [
    "FedAvg",
    "FedStride",
    "FedNova",
    "QFedAvg",
    "Median",
    "TrimmedMean",
    "Krum",
    "MultiKrum",
    "GeometricMedian",
    "Bulyan",
    "FedRec",
    "FedAsync",
    "FedBuff",
]
every_rule = pytest.mark.parametrize("rule", RULES)


def make(rule: str) -> Aggregator:
    """The rule, for which seven updates are enough."""
    made = MADE.get(rule, RULES[rule])()
    assert min_updates(made) <= len(FACTORS)
    return made


def model(seed: int) -> list[Array]:
    """A tensor of every dtype and several shapes, small values."""
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 2 if d == "bool" else 100, s).astype(DTYPES[d]) for d in DTYPES for s in SHAPES]


def views() -> list[View]:
    """Updates of learners a to g, all tensors trained from one model, with other losses and numbers of steps."""
    parent = model(0)
    flags = [True] * len(parent)
    told = [({"loss_before_training": 1 + i / 4}, {"num_completed_batches": 8 + i}) for i in range(len(FACTORS))]
    return [View("abcdefg"[i], model(i + 1), parent, flags, *told[i], current=parent) for i in range(len(FACTORS))]


def octets(arrays: list[Array]) -> list[bytes]:
    """The arrays' bits."""
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("rule", [rule for rule in RULES if min_updates(make(rule)) == 1 and rule not in SHORTER])
@given(arrays=st.lists(any_array(), min_size=1, max_size=4), factor=st.integers(1, 2**53))
def test_one_contribution_comes_back_bit_equal(rule: str, arrays: list[Array], factor: int) -> None:
    """The model of a single update is that update, of every dtype, to the last bit; its arrays are fresh.

    Not of the rules whose step is shorter, nor of numbers that are not finite where a rule keeps sums: updates are.
    """
    assume(rule != "FedRec" or all(np.isfinite(array.astype(np.float64)).all() for array in arrays))
    parent = [np.zeros_like(array) for array in arrays]
    got, _ = make(rule).aggregate([View("a", arrays, parent, [True] * len(arrays), **TOLD)], [factor], None)
    assert octets(got) == octets(arrays)
    assert not any(np.shares_memory(new, old) for new, old in zip(got, arrays, strict=True))


@every_rule
def test_what_all_agree_on_comes_back(rule: str) -> None:
    """The model of seven equal updates is that update, floats up to the rounding of their last digit.

    In float64 each term of a sum is rounded.
    """
    update = [*model(1), np.array([0.1, 1 / 3, -7e30], np.float32), np.array([2**53 - 1, 1 - 2**53])]
    agreed = [View(name, update, update, current=update, **TOLD) for name in "abcdefg"]
    got, _ = make(rule).aggregate(agreed, FACTORS, None)
    for new, old in zip(got, update, strict=True):
        limit = float(ml_dtypes.finfo(old.dtype).eps) if old.dtype.kind not in "iub" else 0
        limit *= 2 if old.dtype == np.float64 else 1
        assert np.allclose(new.astype(np.float64), old.astype(np.float64), rtol=limit, atol=0)
        assert not np.shares_memory(new, old)


@every_rule
def test_room_for_the_model_changes_nothing(rule: str) -> None:
    """A rule that is given arrays for the result gives the same model, in them or in arrays of its own."""
    fresh, _ = make(rule).aggregate(views(), FACTORS, None)
    got, _ = make(rule).aggregate(views(), FACTORS, None, [np.full_like(array, 1) for array in fresh])
    assert octets(got) == octets(fresh)


@pytest.mark.parametrize("rule", IN_PLACE)
def test_the_model_is_written_where_it_is_wanted(rule: str) -> None:
    """Arrays that the caller gives for the result hold it, the same to the last bit: no model is made beside them."""
    fresh, _ = make(rule).aggregate(views(), FACTORS, None)
    room = [np.full_like(array, 1) for array in fresh]
    got, _ = make(rule).aggregate(views(), FACTORS, None, room)
    assert all(one is other for one, other in zip(got, room, strict=True))
    assert octets(room) == octets(fresh)


@every_rule
def test_dtypes_and_shapes_survive(rule: str) -> None:
    """Each tensor keeps its dtype and shape, 0-d and empty ones too."""
    got, _ = make(rule).aggregate(views(), FACTORS, None)
    assert [(a.dtype, a.shape) for a in got] == [(a.dtype, a.shape) for a in model(0)]


@every_rule
def test_the_inputs_are_not_touched(rule: str) -> None:
    """Updates are read-only and stay as they are, and so does the list of factors."""
    given_views, factors = views(), [float(factor) for factor in FACTORS]
    for view in given_views:
        for array in [*view.arrays, *view.parent]:
            array.flags.writeable = False
    before = [octets(list(view.arrays)) for view in given_views]
    make(rule).aggregate(given_views, factors, None)
    assert [octets(list(view.arrays)) for view in given_views] == before
    assert factors == FACTORS


@every_rule
def test_the_same_updates_give_the_same_bytes(rule: str) -> None:
    """A rule is a pure function: after a restart the same updates make the same model."""
    first, second = (make(rule).aggregate(views(), FACTORS, None)[0] for _ in range(2))
    assert octets(first) == octets(second)


@every_rule
@given(order=st.permutations(range(len(FACTORS))))
def test_the_order_of_the_updates_does_not_matter(rule: str, order: list[int]) -> None:
    """Integers and bools are equal in any order, floats up to the rounding of their last digit."""
    updates = views()
    straight, _ = make(rule).aggregate(updates, FACTORS, None)
    shuffled, _ = make(rule).aggregate([updates[i] for i in order], [FACTORS[i] for i in order], None)
    for one, other in zip(straight, shuffled, strict=True):
        if one.dtype.kind in "iub":
            assert np.array_equal(one, other)
        else:
            wide, limit = one.astype(np.float64), 1e-15 if one.dtype == np.float64 else 0.008  # bfloat16 has 8 bits
            assert np.allclose(wide, other.astype(np.float64), rtol=limit, atol=0)


TOLD_WILDLY: list[tuple[float, float]] = [(0, 1), (1e300, 2**53), (1e-300, 3), (1.5, 1), (2, 1000), (1, 2**40), (1, 1)]


@every_rule
@given(arrays=st.lists(any_array(["float16", "bfloat16", "float32", "float64"]), min_size=1, max_size=3))
def test_finite_updates_make_a_finite_model(rule: str, arrays: list[Array]) -> None:
    """Whatever finite values learners send, the community model is finite."""
    finite = [np.where(np.isfinite(array), array, np.zeros_like(array)) for array in arrays]
    opposite = [-array for array in finite]
    told = [({"loss_before_training": loss}, {"num_completed_batches": steps}) for loss, steps in TOLD_WILDLY]
    sent = [finite, finite, opposite, opposite, finite, opposite, finite]
    updates = [View(str(i), rows, finite, (), *told[i], current=finite) for i, rows in enumerate(sent)]
    got, _ = make(rule).aggregate(updates, [2**53, 1, 7, 1, 1, 1, 1], None)
    assert all(np.isfinite(array).all() for array in got)
