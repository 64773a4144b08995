"""GeometricMedian: medians worked out by hand, the smoothed Weiszfeld steps restated, and what poisoners cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import View
from services.aggregation.distances import TILE
from services.aggregation.geometric_median import GeometricMedian
from services.errors import AggregationFailed
from services.weights import DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]


def combine(rule: GeometricMedian, rows: Sequence[Any] | Array, dtype: str = "float64", parent: Any = None) -> Array:
    """The rule's model of one tensor, in float64."""
    arrays = [np.array(row).astype(DTYPES[dtype]) for row in rows]
    before = [np.zeros_like(arrays[0]) if parent is None else np.array(parent).astype(DTYPES[dtype])]
    views = [View(f"learner-{i:02}", [array], before, [True]) for i, array in enumerate(arrays)]
    (got,), state = rule.aggregate(views, [float(i) for i in range(len(views))])
    assert state is None
    assert got.dtype == DTYPES[dtype]
    return got.astype(np.float64)


# The corners of a triangle with sides of equal length and its centre; the ends of two crossing lines: their crossing.
TRIANGLE = [[0.0, 0.0], [2.0, 0.0], [1.0, 3**0.5]]
CROSSING = [[-3.0, 1.0], [1.0, 1.0], [0.0, -7.0], [0.0, 2.0]]  # y = 1 from -3 to 1, x = 0 from -7 to 2: (0, 1)


@pytest.mark.parametrize(("rows", "want"), [(TRIANGLE, [1.0, 3**-0.5]), (CROSSING, [0.0, 1.0])])
def test_the_median_is_the_one_of_geometry(rows: list[list[float]], want: list[float]) -> None:
    """Of a triangle of equal sides the centre; of four corners the crossing of the diagonals. Factors do not matter."""
    assert np.allclose(combine(GeometricMedian(), rows), want, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_on_a_line_it_is_the_middle_value(dtype: str) -> None:
    """Of 1, 2, 3, 50 and 60 it is 3 (up to the smoothing), where the mean is 23.2."""
    got = combine(GeometricMedian(), [[3], [60], [1], [50], [2]], dtype)
    assert got == pytest.approx(3, abs=1e-4)


def test_two_steps_worked_out_by_hand() -> None:
    """Updates 0, 0, 6: the mean is 2. Distances 2, 2, 4 weigh 2:2:1, so 6/5. Then 6/5, 6/5, 24/5 weigh 4:4:1: 6/9."""
    assert combine(GeometricMedian(iterations=1), [[0.0], [0.0], [6.0]]) == pytest.approx(6 / 5, rel=1e-6)
    assert combine(GeometricMedian(iterations=2), [[0.0], [0.0], [6.0]]) == pytest.approx(6 / 9, rel=1e-6)
    # distances below nu = 3 count as 3: weights 4:4:3, so 18/11
    assert combine(GeometricMedian(iterations=1, nu=3.0), [[0.0], [0.0], [6.0]]) == pytest.approx(18 / 11, rel=1e-6)


def test_what_distances_leave_out_is_the_median_of_all() -> None:
    """A counter, a mask and a buffer: 20 of 10, 20 and 30; True of three."""
    views = []
    for i, value in enumerate([0.0, 0.0, 6.0]):
        far = 10 * (i + 1)
        arrays = [np.array([value]), np.array(far), np.array(i != 1), np.array([far], np.float32)]
        views.append(View(str(i), arrays, [np.zeros_like(a) for a in arrays], [True, True, True, False]))
    got, _ = GeometricMedian(iterations=1).aggregate(views, [1.0] * 3)
    assert got[0] == pytest.approx(6 / 5, rel=1e-6)
    assert [array.tolist() for array in got[1:]] == [20, True, [20.0]]


def restated(rows: Array, iterations: int, nu: float) -> Array:
    """The paper's algorithm from the mean on: z, then weights 1 / max(nu, |z - w|), then z anew."""
    z: Array = rows.mean(axis=0)
    for _ in range(iterations):
        weights = 1 / np.maximum(nu, np.linalg.norm(rows - z, axis=1))
        z = weights @ rows / weights.sum()
    return z


@given(st.data())
def test_it_is_the_papers_algorithm(data: st.DataObject) -> None:
    """Any number of updates and steps: within float32's rounding of the weights and the rounding of the dtype."""
    dtype = data.draw(st.sampled_from(FLOATS))
    count, steps = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    nu = data.draw(st.sampled_from([1e-6, 0.5, 10.0]))
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    parent = draw.standard_normal(50)
    rows = parent + draw.standard_normal((count, 50)) * draw.uniform(0.1, 10, (count, 1))
    held = rows.astype(DTYPES[dtype]).astype(np.float64)
    got = combine(GeometricMedian(steps, nu), rows, dtype, parent)
    limit = float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    assert np.allclose(got, restated(held, steps, nu), rtol=limit, atol=1e-5)


@given(st.integers(0, 10_000), st.integers(3, 15))
def test_no_other_point_is_nearer_in_total(seed: int, count: int) -> None:
    """The total distance to the updates grows in every direction, and is no larger than from each of them."""
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((count, 6)) * draw.uniform(0.1, 10, (count, 1))
    got = combine(GeometricMedian(), rows)

    def total(point: Array) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    others = [*rows, rows.mean(axis=0), *(got + 0.01 * draw.standard_normal((20, 6)))]
    assert all(total(got) <= total(other) + 1e-4 for other in others)


@pytest.mark.parametrize("wild", [1e3, 1e10, 1e30, 3e38])
def test_poisoners_do_not_move_it_far(wild: float) -> None:
    """Three of seven send what is far from all others, together; the model stays among the honest updates."""
    draw = np.random.default_rng(3)
    parent = draw.standard_normal(300)
    honest = [parent + 0.01 * draw.standard_normal(300) for _ in range(4)]
    for bad in ([parent + wild] * 3, [parent - wild, parent + wild, parent - 2]):
        got = combine(GeometricMedian(), [*bad, *honest], "float32", parent)
        assert np.linalg.norm(got - parent) < 2


def test_updates_whose_squares_overflow_have_no_weight() -> None:
    """Two of five lie beyond the square root of the largest float64: the others' median is the model."""
    rows = [[1.7e308, -1.7e308], [-1.7e308, 1.7e308], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    assert np.allclose(combine(GeometricMedian(), rows), [2.0, 0.0], atol=1e-5)
    assert np.isfinite(combine(GeometricMedian(), rows[:2])).all()


def test_it_is_over_all_blocks_of_all_tensors() -> None:
    """The distance of a model of several tensors, some of several blocks, is the one of them laid end to end."""
    draw = np.random.default_rng(4)
    rows = draw.standard_normal((5, 3 * TILE + 20))
    parent = [np.zeros(7), np.zeros(3 * TILE), np.zeros((13, 1))]
    views = []
    for i, row in enumerate(rows):
        parts = np.split(row, [7, 7 + 3 * TILE])
        views.append(View(str(i), [part.reshape(p.shape) for part, p in zip(parts, parent, strict=True)], parent))
    got, _ = GeometricMedian(3).aggregate(views, [1.0] * 5)
    assert np.allclose(np.concatenate([array.reshape(-1) for array in got]), restated(rows, 3, 1e-6), atol=1e-6)


def test_nothing_to_combine_is_a_failure_with_a_reason() -> None:
    """No update has no median."""
    with pytest.raises(AggregationFailed, match="needs 1 updates, there are 0"):
        GeometricMedian().aggregate([], [])
