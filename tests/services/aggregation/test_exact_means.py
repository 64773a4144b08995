"""Means against exact rational ones: of whole numbers of any size, of floats, and FedRec's whatever came before."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import RULES, State, View
from services.aggregation.base import Imprecise
from services.aggregation.fedavg import mean
from services.aggregation.fedstride import strided_mean
from services.aggregation.order_statistics import middle_mean
from services.weights import DTYPES
from tests.services.arrays import Array

WHOLE = [name for name, dtype in DTYPES.items() if dtype.kind in "iu"]
FACTORS = st.integers(1, 2**53) | st.integers(1, 9) | st.floats(0.1, 10)


def exact(values: Sequence[Any], factors: Sequence[float]) -> Fraction:
    """The mean without any rounding."""
    weights = [Fraction(factor) for factor in factors]
    return sum((Fraction(v) * w for v, w in zip(values, weights, strict=True)), Fraction()) / sum(weights)


def rows(name: str) -> st.SearchStrategy[list[tuple[int, float]]]:
    """Values of an integer dtype, among them its largest and neighbours, with factors."""
    limits = np.iinfo(DTYPES[name])
    near = st.sampled_from([limits.max, limits.max - 1, limits.min, limits.min + 1, limits.max // 2, 0, 1])
    return st.lists(st.tuples(near | st.integers(int(limits.min), int(limits.max)), FACTORS), min_size=2, max_size=7)


@pytest.mark.parametrize("name", WHOLE)
@given(st.data())
def test_whole_numbers_are_averaged_exactly_and_rounded_half_to_even(name: str, data: st.DataObject) -> None:
    """Also above 2^53, where sums pass it, and where factors are no whole numbers; FedStride's are the same."""
    given_rows = data.draw(rows(name))
    models = [[np.array([value], DTYPES[name])] for value, _ in given_rows]
    factors = [factor for _, factor in given_rows]
    want = round(exact([value for value, _ in given_rows], factors))  # Python rounds half to even
    assert int(mean(models, factors)[0][0]) == want
    assert int(strided_mean(models, factors, 2)[0][0]) == want


@pytest.mark.parametrize("name", WHOLE)
@given(st.data())
def test_middle_means_of_whole_numbers_are_exact(name: str, data: st.DataObject) -> None:
    """The median of an even count, and a trimmed mean."""
    values = [value for value, _ in data.draw(rows(name))]
    cut = (len(values) - 1) // 2
    kept = sorted(values)[cut : len(values) - cut]
    models = [[np.array([value], DTYPES[name])] for value in values]
    assert int(middle_mean(models, cut)[0][0]) == round(exact(kept, [1] * len(kept)))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=7, max_size=7))
def test_bulyan_takes_the_exact_median_of_whole_numbers(values: list[int]) -> None:
    """No distance looks at them: it is the median of all."""
    views = [View(f"l{i}", [np.array([value])], [np.array([0])], [True]) for i, value in enumerate(values)]
    (made,), _ = RULES["Bulyan"](num_byzantine=1).aggregate(views, [1.0] * 7, None)
    assert int(made[0]) == sorted(values)[3]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2**53)), min_size=2, max_size=9))
def test_a_bool_is_the_exact_majority(given_rows: list[tuple[bool, int]]) -> None:
    """A tie is False, also where the sum of the factors passes 2^53."""
    made = mean([[np.array([value])] for value, _ in given_rows], [float(factor) for _, factor in given_rows])
    assert bool(made[0][0]) == (exact(*zip(*given_rows, strict=True)) > Fraction(1, 2))


@given(st.floats(allow_nan=False, allow_infinity=False), st.lists(FACTORS, min_size=2, max_size=40))
def test_what_all_agree_on_stays_to_the_bit(value: float, factors: list[float]) -> None:
    """In float64, where the sum of shares is not always 1."""
    (made,) = mean([[np.array([value])]] * len(factors), factors)
    assert made[0] == value


@given(st.lists(st.tuples(st.floats(-1e300, 1e300), FACTORS), min_size=2, max_size=40))
def test_a_float64_mean_lies_between_and_near_the_exact_one(given_rows: list[tuple[float, float]]) -> None:
    """Within a rounding for each update."""
    values, factors = zip(*given_rows, strict=True)
    (made,) = mean([[np.array([value])] for value in values], factors)
    assert min(values) <= made[0] <= max(values)
    scale = exact([abs(value) for value in values], factors)
    assert abs(Fraction(float(made[0])) - exact(values, factors)) <= len(values) * scale / 2**52 + Fraction(40, 2**1074)


class Recency:
    """FedRec as an asynchronous run has it: what the learners sent last, and the rule's state."""

    def __init__(self, dtype: str) -> None:
        self.rule: Any = RULES["FedRec"]()
        self.state: State | None = None
        self.dtype, self.anew = DTYPES[dtype], 0
        self.newest: dict[str, tuple[Array, float]] = {}
        self.model = np.zeros(1, self.dtype)

    def commit(self, learner: str, value: Any, factor: float) -> Any:
        """The community model's only value after it."""
        before, update = self.newest.get(learner), np.array([value]).astype(self.dtype)
        told: dict[str, Any] = {"previous": [before[0]], "previous_factor": before[1]} if before else {}
        self.newest[learner] = (update, factor)
        try:
            view = View(learner, [update], current=[self.model], **told)
            (self.model,), self.state = self.rule.aggregate([view], [factor], self.state)
        except Imprecise:
            self.anew += 1
            views = [View(name, [array], current=[self.model]) for name, (array, _) in self.newest.items()]
            (self.model,), self.state = self.rule.aggregate(views, [f for _, f in self.newest.values()], None)
        return self.model[0]

    @property
    def want(self) -> Fraction | None:
        """The mean of everybody's newest; None while nobody counts."""
        kept = [(array[0].item(), factor) for array, factor in self.newest.values() if factor > 0]
        return exact(*zip(*kept, strict=True)) if kept else None

    def is_right(self) -> bool:
        """Whether the model is that mean, to float64 rounding of what entered it."""
        want = self.want
        if want is None:
            return True
        if self.dtype.kind in "iu":
            return int(self.model[0]) == round(want)
        kept = [(abs(array[0].item()), factor) for array, factor in self.newest.values() if factor > 0]
        limits, size = np.finfo(self.dtype), exact(*zip(*kept, strict=True))
        rounding = size * Fraction(float(limits.eps)) * 2 + Fraction(float(limits.smallest_subnormal))
        return abs(Fraction(self.model[0].item()) - want) <= rounding


@pytest.mark.parametrize("spike", [1e16, 1e17, 1e20, 1e150, 1e300])
def test_a_spike_that_was_replaced_leaves_nothing_behind(spike: float) -> None:
    """A plain running sum stays wrong by up to the spike's rounding for ever."""
    one = Recency("float64")
    for name, value in (("a", 0.1), ("b", spike), ("c", 0.3), ("b", 0.2), ("a", 0.4)):
        one.commit(name, value, 1.0)
        assert one.is_right(), name


@pytest.mark.parametrize("factors", [(2.0**53, 1.0), (2.0**53, 3.0), (1e-9, 2.0**53)])
def test_factors_of_any_size_follow_each_other(factors: tuple[float, float]) -> None:
    """A learner that counted for nearly everything counts little from then on."""
    one = Recency("float64")
    one.commit("a", 0.1, 1.0)
    for factor in factors:
        one.commit("b", 0.7, factor)
        assert one.is_right()


def test_a_factor_of_zero_takes_a_learner_out() -> None:
    """The model is the others' mean; while nobody counts it stays, and goes on with the next who does."""
    one = Recency("float32")
    assert one.commit("a", 2.0, 1.0) == 2.0
    assert one.commit("b", 5.0, 2.0) == 4.0
    assert one.commit("b", 9.0, 0.0) == 2.0
    assert one.commit("a", 7.0, 0.0) == 2.0
    assert one.commit("b", 6.0, 3.0) == 6.0


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e-300, 1.7e308])
def test_the_smallest_and_the_largest_numbers_are_not_lost(value: float) -> None:
    """Sums are in a unit that holds them."""
    one = Recency("float64")
    for name, commit in itertools.product("ab", (1.0, 3.0)):
        one.commit(name, value, commit)
        assert one.is_right()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint64", "int8"])
@given(st.data())
def test_fedrec_is_the_mean_of_everybodys_newest_whatever_came_before(dtype: str, data: st.DataObject) -> None:
    """Random commits of values and factors of every size."""
    if DTYPES[dtype].kind in "iu":
        values: Any = rows(dtype).map(lambda drawn: drawn[0][0])
    else:
        limit = min(1e100, float(np.finfo(DTYPES[dtype]).max))
        values = st.floats(-limit, limit) | st.floats(-2, 2)
    commits = st.tuples(st.sampled_from("abcd"), values, FACTORS | st.just(0))
    one = Recency(dtype)
    for name, value, factor in data.draw(st.lists(commits, min_size=1, max_size=15)):
        one.commit(name, value, float(factor))
        assert one.is_right()


def test_the_state_of_an_earlier_version_goes_on() -> None:
    """It has a sum in another unit, and nothing of what rounding took."""
    one = Recency("float64")
    one.newest = {"a": (np.array([2.0]), 1.0), "b": (np.array([4.0]), 3.0)}
    one.state = {"sum": [np.array([14.0 * 2.0**-63])], "weight": 4.0}
    one.commit("a", 6.0, 1.0)
    assert one.is_right()
