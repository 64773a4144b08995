"""FedNova: numbers worked out by hand, the paper's formula restated, and updates that do not say their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import View
from services.aggregation.fedavg import FedAvg
from services.aggregation.fednova import FedNova
from services.errors import AggregationFailed, InvalidWeight
from services.weights import BLOCK, DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]


def combine(
    parent: Sequence[Array],
    rows: Sequence[Sequence[Array]],
    steps: Sequence[float],
    factors: Sequence[float],
    trainable: Sequence[bool] = (),
) -> list[Array]:
    """The rule's model."""
    views = [
        View(f"learner-{i}", row, parent, trainable, {}, {"num_completed_batches": taken})
        for i, (row, taken) in enumerate(zip(rows, steps, strict=True))
    ]
    model, state = FedNova().aggregate(views, factors)
    assert state is None
    return model


# W = 10. Learner a took 2 steps to 14, b 8 steps to 18; p = 3/4 and 1/4.
# tau_eff = 3/4 * 2 + 1/4 * 8 = 3.5; a step of a is 4 / 2 = 2, one of b 8 / 8 = 1: 3/4 * 2 + 1/4 * 1 = 1.75.
# W + 3.5 * 1.75 = 16.125. FedAvg: 3/4 * 14 + 1/4 * 18 = 15.
def test_effective_steps_go_before_batches() -> None:
    """Those of local momentum; null is as if it were not told, and 0 is told."""
    parent, rows = [np.array([10.0])], [[np.array([14.0])], [np.array([18.0])]]
    told: list[dict[str, Any]] = [
        {"num_completed_batches": 5, "effective_steps": 2},
        {"num_completed_batches": 8, "effective_steps": None},
    ]
    views = [View(str(i), row, parent, (), {}, one) for i, (row, one) in enumerate(zip(rows, told, strict=True))]
    assert FedNova().aggregate(views, [3, 1])[0][0] == 16.125
    told[1]["effective_steps"] = 0
    assert FedNova().aggregate(views, [3, 1])[0][0] == 14.0


@pytest.mark.parametrize("dtype", FLOATS)
def test_steps_are_made_equal_as_worked_out_by_hand(dtype: str) -> None:
    """16.125, in the tensor's own dtype."""
    parent, first, second = (np.array([value]).astype(DTYPES[dtype]) for value in (10, 14, 18))
    (got,) = combine([parent], [[first], [second]], [2, 8], [3, 1])
    assert got.dtype == DTYPES[dtype]
    assert got.astype(np.float64).tolist() == [float(np.float64(16.125).astype(DTYPES[dtype]))]


def test_what_is_not_trained_takes_the_weighted_mean() -> None:
    """A counter, a mask and a buffer beside the weight: 3/4 * 14 + 1/4 * 18 = 15, and True of 3/4."""
    parent = [np.array([10], np.float32), np.array(10), np.array(False), np.array([10], np.float32)]
    rows = [[np.array([v], np.float32), np.array(v), np.array(v == 14), np.array([v], np.float32)] for v in (14, 18)]
    got = combine(parent, rows, [2, 8], [3, 1], [True, True, True, False])
    assert [array.tolist() for array in got] == [[16.125], 15, True, [15.0]]


@given(st.data())
def test_it_is_the_papers_formula(data: st.DataObject) -> None:
    """W + tau_eff * sum of p_k (w_k - W) / tau_k, restated over float64, within the rounding of the tensor's dtype."""
    dtype = DTYPES[data.draw(st.sampled_from(FLOATS))]
    count = data.draw(st.integers(2, 6))
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    steps = data.draw(st.lists(st.integers(1, 1000), min_size=count, max_size=count))
    factors = data.draw(st.lists(st.integers(1, 10**6), min_size=count, max_size=count))
    parent = draw.standard_normal((3, 5)).astype(dtype)
    rows = [(parent.astype(np.float64) + 0.01 * draw.standard_normal((3, 5))).astype(dtype) for _ in range(count)]
    (got,) = combine([parent], [[row] for row in rows], steps, factors)
    p = np.array(factors) / sum(factors)
    start = parent.astype(np.float64)
    normalised = sum(p[k] * (rows[k].astype(np.float64) - start) / steps[k] for k in range(count))
    want = start + (p @ np.array(steps)) * normalised
    limit = float(ml_dtypes.finfo(dtype).eps)
    assert np.allclose(got.astype(np.float64), want, rtol=limit, atol=limit * np.abs(want).max() * 4)


@given(st.integers(1, 2**53), st.lists(st.integers(1, 1000), min_size=2, max_size=6))
def test_equal_steps_are_fedavg(steps: int, factors: list[int]) -> None:
    """When all took equally many steps nothing is to be made equal."""
    draw = np.random.default_rng(3)
    rows = [[draw.standard_normal(20)] for _ in factors]
    parent = [draw.standard_normal(20)]
    (got,) = combine(parent, rows, [steps] * len(factors), factors)
    (want,), _ = FedAvg().aggregate([View(str(i), row) for i, row in enumerate(rows)], factors)
    assert np.allclose(got, want, rtol=0, atol=1e-14)


def test_updates_that_count_nothing_are_left_out() -> None:
    """Of factor 0, or of no step: what remains is as if these had not come; one that remains comes back to the bit."""
    parent, rows = [np.array([10.0])], [[np.array([v])] for v in (14.0, 1e300, 18.0, -1e300)]
    (got,) = combine(parent, rows, [2, 5, 8, 0], [3, 0, 1, 7])
    assert got.tolist() == [16.125]
    alone = np.array([0.1, -0.0, 3e-320])
    (got,) = combine([np.ones(3)], [[alone], [np.zeros(3)]], [3, 0], [1, 1])
    assert got.tobytes() == alone.tobytes()
    with pytest.raises(AggregationFailed, match="no update has a scaling factor and num_completed_batches above 0"):
        combine(parent, rows[:2], [0, 5], [1, 0])


def test_what_would_overflow_is_held_at_the_largest_value() -> None:
    """Normalised steps may go beyond every update: W = 0, L in 1 step and L in 3 steps are 2 (L/2 + L/6) = 4/3 L."""
    for dtype in FLOATS:
        largest = float(ml_dtypes.finfo(DTYPES[dtype]).max)
        zero, far = (np.array([v]).astype(DTYPES[dtype]) for v in (0.0, largest))
        (got,) = combine([zero], [[far], [far]], [1, 3], [1, 1])
        assert float(got[0]) == largest
        (got,) = combine([-far], [[far], [far]], [1, 3], [1, 1])
        assert float(got[0]) == largest
        (got,) = combine([zero], [[far], [-far], [zero]], [1, 1, 100], [1, 1, 1])  # 11.33 L - 11.33 L
        assert float(got[0]) == 0


def test_every_block_of_a_large_tensor_moves() -> None:
    """A tensor longer than the blocks in which it is worked on moves at every place, as worked out above."""
    for dtype in ("float32", "float64"):
        parent = np.arange(9 * BLOCK + 3).astype(dtype) % 1000
        (got,) = combine([parent], [[parent + 4], [parent + 8]], [2, 8], [3, 1])
        assert np.array_equal(got, parent + 6.125)


@pytest.mark.parametrize("value", [None, -1, float("nan"), float("inf"), True, "8", 2**53 + 1])
def test_an_update_that_does_not_say_its_steps_is_refused(value: Any) -> None:
    """The error names the key."""
    FedNova().check_update({"num_completed_batches": 0}, {})
    given_metadata = {} if value is None else {"num_completed_batches": value}
    with pytest.raises(InvalidWeight, match="num_completed_batches") as caught:
        FedNova().check_update(given_metadata, {})
    assert caught.value.values["key"] == "num_completed_batches"
