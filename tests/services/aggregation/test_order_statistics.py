"""Median and TrimmedMean: numbers worked out by hand, and the papers' formulas restated in plain numpy."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import View
from services.aggregation.median import Median
from services.aggregation.order_statistics import ROW, middle_mean, network
from services.aggregation.trimmed_mean import TrimmedMean
from services.errors import AggregationFailed
from services.weights import DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind in "iu"]
NUMBERS = pytest.mark.parametrize("dtype", FLOATS + INTEGERS)

BLOCKS = importlib.import_module("services.weights.blocks")  # its room shows a function of that name


def combine(rule: Median | TrimmedMean, rows: Sequence[Sequence[Any]], dtype: str) -> list[Any]:
    """The rule over updates of one tensor, as Python values."""
    views = [View(f"learner-{i:02}", [np.array(row).astype(DTYPES[dtype])]) for i, row in enumerate(rows)]
    (array,), state = rule.aggregate(views, [float(i) for i in range(len(rows))])
    assert state is None
    assert array.dtype == DTYPES[dtype]
    values: list[Any] = array.tolist() if array.dtype.kind in "iub" else array.astype(np.float64).tolist()
    return values


@NUMBERS
def test_the_median_of_an_odd_count_is_the_middle_value(dtype: str) -> None:
    """Of 5, 1, 100 it is 5; the factors 0, 1, 2 do not matter, nor does that one of them is 0."""
    assert combine(Median(), [[5, 7], [1, 7], [100, 0]], dtype) == [5, 7]


@NUMBERS
def test_the_median_of_an_even_count_is_the_mean_of_the_middle_two(dtype: str) -> None:
    """Of 1, 2, 4, 100 it is 3; of 1, 2, 3, 100 it is 2.5, of 3, 4 3.5 and of 5, 6 5.5: integers go to the even one."""
    rows = [[1, 1, 3, 5], [2, 2, 3, 5], [4, 3, 4, 6], [100, 100, 4, 6]]
    assert combine(Median(), rows, dtype) == ([3, 2.5, 3.5, 5.5] if dtype in FLOATS else [3, 2, 4, 6])


def test_the_median_of_a_bool_is_the_majority_and_a_tie_is_false() -> None:
    """Two of three are True, one of three is; two of four are a tie."""
    assert combine(Median(), [[True, False], [True, False], [False, True]], "bool") == [True, False]
    assert combine(Median(), [[True, True], [True, True], [False, True], [False, False]], "bool") == [False, True]


@NUMBERS
def test_the_trimmed_mean_leaves_out_as_many_at_each_end(dtype: str) -> None:
    """A quarter of 5 is 1: of 0, 3, 4, 6, 100 the mean of 3, 4, 6 is 13/3; of 9, 9, 1, 2, 1 that of 1, 2, 9 is 4."""
    got = combine(TrimmedMean(0.25), [[0, 9], [100, 9], [6, 1], [4, 2], [3, 1]], dtype)
    exact = float(np.float64(13 / 3).astype(DTYPES[dtype])) if dtype in FLOATS else 4
    assert got == [exact, 4]


def test_the_trimmed_mean_of_a_bool_is_the_majority_of_what_remains() -> None:
    """Of two True and three False one goes at each end: False. Of six with three of each four remain: a tie."""
    assert combine(TrimmedMean(0.2), [[True], [True], [False], [False], [False]], "bool") == [False]
    assert combine(TrimmedMean(0.2), [[True]] * 3 + [[False]] * 2, "bool") == [True]
    assert combine(TrimmedMean(0.2), [[True]] * 3 + [[False]] * 3, "bool") == [False]


@pytest.mark.parametrize(
    ("ratio", "count", "trimmed"),
    [
        (0.1, 9, 0),
        (0.1, 10, 1),
        (0.1, 30, 3),
        (0.29, 100, 29),  # although 0.29 * 100 is 28.999999999999996
        (0.25, 5, 1),
        (0.49, 2, 0),
        (0.4999999999999, 2, 0),
        (0.4999999999999, 3, 1),
        (0.0, 7, 0),
    ],
)
def test_how_many_are_trimmed(ratio: float, count: int, trimmed: int) -> None:
    """floor(ratio x count) at each end; something always remains."""
    assert TrimmedMean(ratio).trimmed(count) == trimmed
    assert 2 * trimmed < count


def test_a_single_poisoner_moves_nothing() -> None:
    """Four learners say 1 and 2; whatever a fifth says, each coordinate stays within what the honest ones said."""
    honest = [[1.0, -2.0], [1.5, -1.0], [1.25, -1.5], [2.0, -1.0]]
    for wild in (3e38, -3e38, 0.0):
        for rule in (Median(), TrimmedMean(0.2)):
            first, second = combine(rule, [*honest[:2], [wild, -wild], *honest[2:]], "float32")
            assert 1 <= first <= 2
            assert -2 <= second <= -1


def test_the_largest_float64_do_not_overflow() -> None:
    """The mean of L, L and -L is L / 3, and the median of L and L is L, although L + L is infinite."""
    largest = 1.5e308
    (third,) = combine(TrimmedMean(0), [[largest], [-largest], [largest]], "float64")
    assert third == pytest.approx(0.5e308, rel=1e-15)
    assert combine(Median(), [[largest], [largest]], "float64") == [largest]


def test_nothing_to_combine_is_a_failure_with_a_reason() -> None:
    """No update has no median."""
    for rule in (Median(), TrimmedMean()):
        with pytest.raises(AggregationFailed, match="there is no update"):
            rule.aggregate([], [])


@st.composite
def tables(draw: st.DrawFn, dtypes: Sequence[str]) -> tuple[Array, float]:
    """Updates of one tensor, (updates, values), and a ratio to trim."""
    dtype = DTYPES[draw(st.sampled_from(list(dtypes)))]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        one: st.SearchStrategy[Any] = st.integers(max(int(limits.min), -(2**44)), min(int(limits.max), 2**44))
    else:
        largest = float(ml_dtypes.finfo(dtype).max)
        one = st.floats(-largest, largest)
    rows = draw(st.lists(st.lists(one, min_size=3, max_size=3), min_size=1, max_size=9))
    return np.array(rows).astype(dtype), draw(st.floats(0, 0.49))


def results(table: Array, ratio: float) -> list[tuple[Array, Array]]:
    """What each rule gives, and the sorted values that it must be the mean of."""
    views = [View(f"learner-{i}", [row]) for i, row in enumerate(table)]
    found, count = [], len(table)
    for rule, cut in ((Median(), (count - 1) // 2), (TrimmedMean(ratio), TrimmedMean(ratio).trimmed(count))):
        (got,), _ = rule.aggregate(views, [1.0] * count)
        kept = np.sort(table if table.dtype.kind in "iu" else table.astype(np.float64), axis=0)[cut : count - cut]
        found.append((got, kept))
    return found


@given(tables(FLOATS))
def test_floats_are_as_the_papers_say(drawn: tuple[Array, float]) -> None:
    """The mean of the sorted values that remain, within the rounding of float64 and of the tensor's dtype."""
    table, ratio = drawn
    limits = ml_dtypes.finfo(table.dtype)
    for got, kept in results(table, ratio):
        want = np.sum(kept / len(kept), axis=0)
        rounding = np.abs(want) * float(limits.eps) + float(limits.smallest_subnormal)
        cancelled = 2.0**-48 * np.max(np.abs(kept), axis=0)
        assert np.all(np.abs(got.astype(np.float64) / 2 - want / 2) <= (rounding + cancelled) / 2)


@given(tables(INTEGERS))
def test_integers_are_exact(drawn: tuple[Array, float]) -> None:
    """The exact mean of what remains, rounded half to even (of up to nine values below 2^44)."""
    for got, kept in results(*drawn):
        assert got.tolist() == [round(Fraction(sum(column), len(kept))) for column in kept.T.tolist()]


@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=12), dtype=st.sampled_from(FLOATS))
def test_the_median_is_one_of_the_values_to_the_bit(values: list[float], dtype: str) -> None:
    """An odd count gives back a learner's own bits, -0 too, in whatever order the learners come."""
    with np.errstate(over="ignore"):
        row = np.array(values[: len(values) - 1 + len(values) % 2]).astype(DTYPES[dtype])
    got = [middle_mean([[v] for v in order], (len(row) - 1) // 2)[0].tobytes() for order in (row, row[::-1])]
    assert got[0] == got[1]
    assert got[0] in [value.tobytes() for value in row]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=9), st.randoms())
def test_the_order_of_the_updates_changes_no_bit(values: list[float], random: Any) -> None:
    """Sums go from the smallest value to the largest, so that every order of learners gives the same float64."""
    shuffled = random.sample(values, len(values))
    one, other = (middle_mean([[np.array(v)] for v in order], 1)[0] for order in (values, shuffled))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("count", range(1, 11))
def test_the_network_sorts(count: int) -> None:
    """A network that sorts all rows of zeros and ones sorts everything (Knuth's 0-1 principle); cut at every place."""
    table = np.array(list(itertools.product([0, 1], repeat=count))).T
    for first, stop in itertools.combinations(range(count + 1), 2):
        rows = list(table.copy())
        for step in network(count, first, stop):
            low, high = np.minimum(rows[step.low], rows[step.high]), np.maximum(rows[step.low], rows[step.high])
            rows[step.low] = low if step.keep_low else np.full_like(low, 9)
            rows[step.high] = high if step.keep_high else np.full_like(high, 9)
        assert np.array_equal(rows[first:stop], np.sort(table, axis=0)[first:stop])


@pytest.mark.parametrize("count", [3, 16, 33])
def test_blocks_and_threads_change_no_bit(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block or hundreds, one thread or four: the same bytes, over several tensors of several dtypes."""
    draw = np.random.default_rng(7)
    models = [
        [draw.standard_normal((11, 67)).astype(DTYPES[d]) for d in FLOATS]
        + [draw.integers(-99, 99, (3, 5)), draw.standard_normal(ROW + 1)]
        for _ in range(count)
    ]
    found = set()
    for threads, row in itertools.product((1, 4), (70, 1000, ROW)):
        monkeypatch.setattr(BLOCKS, "THREADS", threads)
        got = middle_mean(models, count // 4, space=row * count * 8)
        found.add(b"".join(array.tobytes() for array in got))
    assert len(found) == 1
