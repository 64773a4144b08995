"""Bulyan: choices and means worked out by hand, the paper's algorithm restated, and what poisoners cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import View
from services.aggregation.bulyan import Bulyan, mean_around_median, one_by_one
from services.errors import AggregationFailed
from services.weights import BLOCK, DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind in "iu"]


def views(rows: Sequence[Any] | Array, dtype: str = "float32") -> list[View]:
    """Updates of one tensor, of learners in this order."""
    arrays = [np.array(row).astype(DTYPES[dtype]) for row in rows]
    return [View(f"learner-{i:02}", [array], [np.zeros_like(arrays[0])], [True]) for i, array in enumerate(arrays)]


def combine(rule: Bulyan, rows: Sequence[Any] | Array, dtype: str = "float32") -> list[Any]:
    """The rule's model of one tensor as Python values; factors do not matter."""
    (array,), state = rule.aggregate(views(rows, dtype), [float(i) for i in range(len(rows))])
    assert state is None
    assert array.dtype == DTYPES[dtype]
    values: list[Any] = array.astype(np.float64).tolist()
    return values


def line(*values: float) -> Array:
    """Squared distances between numbers."""
    row = np.array(values)
    return np.asarray((row[:, None] - row) ** 2)


# n = 7, f = 1: five are chosen, by the 4, 3, 2, 1 and 0 smallest squared distances among those that are left.
# 0, 1, 3, 6, 10, 15, 100. Four neighbours: 3 has 9 + 4 + 9 + 49 = 71 (1: 1 + 4 + 25 + 81 = 111; 6: 36 + 25 + 9 + 16 =
# 86). Without 3, three: 1 has 1 + 25 + 81 = 107, 6 has 36 + 25 + 16 = 77. Without 6, two: 0 has 1 + 100 = 101, 1 has
# 1 + 81 = 82, 10 has 25 + 81 = 106. Without 1, one: 10 and 15 have 25, 0 has 100; all distances 10: 100 + 25 + 8100,
# 15: 225 + 25 + 7225 = 7475 goes first. Of 0, 10, 100 none is judged by a neighbour; in all 0: 100 + 10000, 10: 100 +
# 8100 goes first, 100: 18100.
LINE = (0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 100.0)


def test_updates_are_chosen_one_by_one() -> None:
    """3, 6, 1, 15, 10, as worked out above; with f = 0 all are."""
    assert [LINE[i] for i in one_by_one(line(*LINE), 1)] == [3, 6, 1, 15, 10]
    assert sorted(one_by_one(line(0, 1, 3), 0)) == [0, 1, 2]


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_model_is_the_mean_around_the_median(dtype: str) -> None:
    """Of the chosen 1, 3, 6, 10, 15 the median is 6 and the three nearest are 3, 6, 10: 19/3."""
    want = float(np.float64(19 / 3).astype(DTYPES[dtype]))
    assert combine(Bulyan(1), [[value] for value in LINE], dtype) == [want]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_the_median_of_all(dtype: str) -> None:
    """No distance looks at them."""
    assert combine(Bulyan(1), [[1], [15], [3], [10], [6], [100], [100]], dtype) == [10]


def test_a_bool_is_the_majority_of_all() -> None:
    """Four True of seven, and five."""
    rows = [[True, True], [True, True], [False, True], [False, False], [False, False], [True, True], [True, True]]
    assert combine(Bulyan(1), rows, "bool") == [1, 1]


@pytest.mark.parametrize(
    ("values", "kept", "want"),
    [
        ([1, 2, 4, 9, 50], 3, 7 / 3),  # median 4: 4, 2, 1
        ([1, 2, 4, 5, 50], 3, 11 / 3),  # 4, 5, 2
        ([1, 2, 3, 50, 60], 3, 2),  # 3, 2, 1
        ([0, 4, 5, 6, 10], 1, 5),
        ([0, 3, 5, 7, 10], 2, 4),  # 3 and 7 are equally near: the smaller one
        ([0, 1, 3, 4], 2, 2),  # median 2: 1 and 3
        ([0, 1, 3, 9], 3, 4 / 3),  # median 2: 1, 3, 0
        ([0, 1.6e308, 1.6e308, 1.7e308], 2, 1.6e308),  # whose sum is infinite
        ([-3e38, 1, 2, 3, 3e38], 3, 2),  # nothing is left of what was far
    ],
)
def test_the_nearest_to_the_median(values: list[float], kept: int, want: float) -> None:
    """Rows in ascending order; the mean is that of the values named."""
    got = mean_around_median([np.array([value], np.float64) for value in values], kept)
    assert got == pytest.approx(want, rel=1e-15)


@given(st.data())
def test_the_nearest_to_the_median_are_those_of_the_definition(data: st.DataObject) -> None:
    """Whole numbers, of which the exact mean is known: values in the order of their distance, the smaller first."""
    count = data.draw(st.integers(1, 9))
    kept = data.draw(st.integers(1, count))
    column = st.lists(st.integers(-(2**40), 2**40) | st.integers(-5, 5), min_size=count, max_size=count)
    columns = [sorted(data.draw(column)) for _ in range(3)]
    got = mean_around_median([np.array(row) for row in zip(*columns, strict=True)], kept)
    for mean, values in zip(got, columns, strict=True):
        middle = Fraction(values[(count - 1) // 2] + values[count // 2], 2)
        nearest = sorted(values, key=lambda value: (abs(value - middle), value))[:kept]
        want = Fraction(sum(nearest), kept)
        assert abs(Fraction(float(mean)) - want) <= abs(want) * Fraction(1, 2**50) + Fraction(1, 2**11)


def restated(rows: Array, f: int) -> Array:
    """The paper's algorithm in plain numpy: Krum on what is left, then per coordinate the nearest to the median."""
    left, chosen, n = list(range(len(rows))), list[int](), len(rows)
    for _ in range(n - 2 * f):
        found = []
        for i in left:
            squares = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in left if j != i)
            found.append((sum(squares[: max(0, len(left) - f - 2)]), sum(squares), i))
        chosen.append(min(found)[2])
        left.remove(chosen[-1])
    table = rows[sorted(chosen)]
    result = np.empty(rows.shape[1])
    for column in range(rows.shape[1]):
        values = np.sort(table[:, column])
        distance = np.abs(values - np.median(values))
        result[column] = values[np.argsort(distance, kind="stable")[: n - 4 * f]].mean()
    return result


@given(st.data())
def test_it_is_the_papers_algorithm(data: st.DataObject) -> None:
    """Whole numbers, whose scores are exact, with ties; every float dtype that holds them."""
    f = data.draw(st.integers(0, 2))
    n = data.draw(st.integers(4 * f + 3, 4 * f + 8))
    dtype = data.draw(st.sampled_from(FLOATS))
    row = st.lists(st.integers(-50, 50), min_size=3, max_size=3)
    rows = np.array(data.draw(st.lists(row, min_size=n, max_size=n)), np.float64)
    limit = float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    assert np.allclose(combine(Bulyan(f), rows, dtype), restated(rows, f), rtol=limit, atol=1e-12)


@pytest.mark.parametrize(("f", "needed"), [(0, 3), (1, 7), (2, 11)])
def test_too_few_updates_are_a_failure_with_a_reason(f: int, needed: int) -> None:
    """n >= 4f + 3 when it comes to aggregating too, since learners drop out."""
    assert Bulyan(f).min_updates == needed
    rows = [[float(i)] for i in range(needed)]
    assert combine(Bulyan(f), rows)
    with pytest.raises(AggregationFailed, match=rf"needs {needed} updates, there are {needed - 1}") as caught:
        combine(Bulyan(f), rows[1:])
    assert caught.value.values == {"expected": needed, "got": needed - 1}


@pytest.mark.parametrize("wild", [1e3, 1e30, 3e38])
def test_poisoners_move_no_coordinate_far(wild: float) -> None:
    """Two of eleven spend all in one coordinate, or lie far away; each coordinate stays within the honest values."""
    draw = np.random.default_rng(3)
    honest = [draw.standard_normal(40) for _ in range(9)]
    spent = np.mean(honest, axis=0)
    spent[0] = 8.0  # within what Krum bears in 40 dimensions
    for bad in ([spent, spent], [np.full(40, wild), np.full(40, wild)], [np.full(40, wild), np.full(40, -wild)]):
        got = np.array(combine(Bulyan(2), [bad[0], *honest, bad[1]]))
        assert np.all(got <= np.max(honest, axis=0))
        assert np.all(got >= np.min(honest, axis=0))


def test_the_largest_float64_do_not_overflow() -> None:
    """The mean of L, L and -L is L / 3, though L - -L is infinite; of L, L, L, L, L, -L, -L the chosen agree on L."""
    largest = 1.5e308
    third, one = combine(Bulyan(0), [[largest, 1], [-largest, 1], [largest, 1]], "float64")
    assert third == pytest.approx(0.5e308, rel=1e-15)
    assert one == 1
    assert combine(Bulyan(1), [[largest]] * 5 + [[-largest]] * 2, "float64") == [largest]


def test_every_block_of_every_tensor_is_combined() -> None:
    """Tensors longer than a block, and several of other dtypes: each is what it is by the definition."""
    base = np.arange(2 * BLOCK + 3) % 100
    models: list[list[Array]] = [[(base + v).astype(np.float32), (base + v).astype(np.int16)] for v in range(7)]
    got, _ = Bulyan(1).aggregate([View(str(i), model, models[3]) for i, model in enumerate(models)], [1.0] * 7)
    want = restated(np.array([[0.0], [1], [2], [3], [4], [5], [6]]), 1)[0]
    assert np.allclose(got[0], base + want, rtol=1e-6)
    assert np.array_equal(got[1], np.rint(base + want))
