"""FedRec, FedAsync and FedBuff against numbers worked out by hand and the papers' formulas in plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import RULES, State, View
from services.aggregation.staleness import Fading
from services.errors import AggregationFailed
from tests.services.arrays import Array

FLOATS = st.sampled_from([np.float16, np.float32, np.float64, ml_dtypes.bfloat16])


class Commits:
    """Learners that commit to FedRec one after the other, as an asynchronous run has them do."""

    def __init__(self) -> None:
        self.state: State | None = None
        self.newest: dict[str, tuple[Array, float]] = {}

    def commit(self, learner: str, update: Array, factor: float) -> Array:
        """The community model after this commit."""
        before = self.newest.get(learner)
        told: dict[str, Any] = {"previous": [before[0]], "previous_factor": before[1]} if before else {}
        view = View(learner, [update], **told)
        (model,), self.state = RULES["FedRec"]().aggregate([view], [factor], self.state)
        self.newest[learner] = (update, factor)
        return model

    @property
    def sums(self) -> tuple[Array, float]:
        """S and z."""
        assert self.state is not None
        return self.state["sum"][0] / self.state["unit"], self.state["weight"]


def test_fedrec_gives_the_numbers_of_its_definition() -> None:
    """v = 1..10, factors 1, 2, 3: after seven commits z = 6 and W = 0.75 v."""
    v, one = np.arange(1.0, 11.0), Commits()
    factors = {"L1": 1, "L2": 2, "L3": 3}
    first = one.commit("L1", v, 1)
    assert np.array_equal(first, v)
    steps: Sequence[tuple[str, Array]] = [("L2", v), ("L1", v), ("L2", v), ("L3", v), ("L1", 0.5 * v), ("L2", 0.5 * v)]
    for name, update in steps:
        model = one.commit(name, update, factors[name])
    assert one.sums[1] == 6
    assert np.array_equal(one.sums[0], 4.5 * v)
    assert np.array_equal(model, 0.75 * v)


@given(
    commits=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 1000), st.integers(0, 10**6)), min_size=1, max_size=12
    )
)
def test_fedrec_is_the_mean_of_everybodys_newest(commits: list[tuple[str, int, int]]) -> None:
    """Whatever the order of the commits, and when factors change from one to the next."""
    one = Commits()
    for name, factor, seed in commits:
        model = one.commit(name, np.random.default_rng(seed).normal(size=5), factor)
    newest = list(one.newest.values())
    want = sum(factor * update for update, factor in newest) / sum(factor for _, factor in newest)
    assert np.allclose(model, want, rtol=1e-14, atol=1e-14)


def test_fedrec_begins_anew_with_everybodys_newest() -> None:
    """Without a state the views are all that counts: what it is given when a learner left."""
    views = [View("a", [np.array([2.0])]), View("b", [np.array([5.0])])]
    (model,), state = RULES["FedRec"]().aggregate(views, [1, 2], None)
    assert (float(model[0]), state and state["weight"]) == (4.0, 3.0)


def test_fedrec_refuses_to_divide_by_zero() -> None:
    """The only commit counts nothing."""
    with pytest.raises(AggregationFailed, match="no update has a scaling factor above 0"):
        Commits().commit("a", np.ones(2), 0)


@pytest.mark.parametrize(
    ("parameters", "staleness", "want"),
    [
        ({"alpha": 0.5, "staleness": "constant"}, 7, 15.0),
        ({"alpha": 1.0, "staleness": "constant"}, 0, 20.0),
        ({}, 3, 13.0),  # 0.6 / sqrt(4) = 0.3
        ({"alpha": 0.5, "staleness": "hinge", "staleness_a": 2, "staleness_b": 4}, 4, 15.0),
        ({"alpha": 0.5, "staleness": "hinge", "staleness_a": 2, "staleness_b": 4}, 6, 11.0),  # 0.5 / 5 = 0.1
    ],
)
def test_fedasync_mixes_by_hand(parameters: dict[str, Any], staleness: int, want: float) -> None:
    """From 10 towards 20."""
    view = View("a", [np.array([20.0])], staleness=staleness, current=[np.array([10.0])])
    (model,), state = RULES["FedAsync"](**parameters).aggregate([view], [1], None)
    assert (model[0], state) == (pytest.approx(want, rel=1e-15), None)


def test_fedbuff_steps_by_hand() -> None:
    """Two fresh steps of +4 and -2, and one of +12 that is three models old and counts half: 10 + (4 - 2 + 6) / 3."""
    current = [np.array([10.0])]
    views = [
        View("a", [np.array([14.0])], parent=current, current=current),
        View("b", [np.array([8.0])], parent=current, current=current),
        View("c", [np.array([17.0])], parent=[np.array([5.0])], current=current, staleness=3),
    ]
    (model,), _ = RULES["FedBuff"](buffer_size=3).aggregate(views, [1, 1, 1], None)
    assert model[0] == pytest.approx(10 + 8 / 3, rel=1e-15)
    (half,), _ = RULES["FedBuff"](buffer_size=3, server_learning_rate=0.5).aggregate(views, [1, 1, 1], None)
    assert half[0] == pytest.approx(10 + 4 / 3, rel=1e-15)


@given(dtype=FLOATS, seed=st.integers(0, 10**6), count=st.integers(1, 6))
def test_fedasync_and_fedbuff_are_the_papers_formulas(dtype: Any, seed: int, count: int) -> None:
    """In every float dtype, random updates of random staleness."""
    draw = np.random.default_rng(seed)
    current = draw.normal(size=(3, 4)).astype(dtype)
    views, wide = [], current.astype(np.float64)
    steps = np.zeros_like(wide)
    for i in range(count):
        parent, update = draw.normal(size=(3, 4)).astype(dtype), draw.normal(size=(3, 4)).astype(dtype)
        age = int(draw.integers(0, 9))
        views.append(View(f"l{i}", [update], parent=[parent], staleness=age, current=[current]))
        steps += (update.astype(np.float64) - parent.astype(np.float64)) / np.sqrt(1 + age) / count
    (model,), _ = RULES["FedBuff"](buffer_size=count).aggregate(views, [1] * count, None)
    tolerance = 8 * float(ml_dtypes.finfo(dtype).eps)  # of a few roundings
    assert np.allclose(model.astype(np.float64), wide + steps, rtol=tolerance, atol=tolerance)
    share = 0.6 / np.sqrt(1 + views[0].staleness)
    (model,), _ = RULES["FedAsync"]().aggregate(views[:1], [1], None)
    want = (1 - share) * wide + share * views[0].arrays[0].astype(np.float64)
    assert np.allclose(model.astype(np.float64), want, rtol=tolerance, atol=tolerance)


def test_whole_numbers_and_truth_values_stay_what_they_are() -> None:
    """Rounded half to even; a bool is what most of the weight says."""
    current = [np.array(10), np.array([False, True])]
    view = View("a", [np.array(15), np.array([True, True])], parent=current, current=current)
    made, _ = RULES["FedAsync"](alpha=0.5, staleness="constant").aggregate([view], [1], None)
    assert (made[0], made[0].dtype, made[1].tolist()) == (12, np.dtype(int), [False, True])
    made, _ = RULES["FedBuff"](server_learning_rate=0.7).aggregate([view], [1], None)
    assert (made[0], made[1].tolist()) == (14, [True, True])


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ("FedAsync", {"alpha": 0}),
        ("FedAsync", {"alpha": 1.5}),
        ("FedAsync", {"staleness": "linear"}),
        ("FedBuff", {"buffer_size": 0}),
        ("FedBuff", {"buffer_size": 2.5}),
        ("FedBuff", {"server_learning_rate": float("nan")}),
        ("FedBuff", {"staleness_a": -1}),
    ],
)
def test_parameters_that_cannot_be_are_refused(rule: str, parameters: dict[str, Any]) -> None:
    """Each says which."""
    with pytest.raises(ValueError, match=next(iter(parameters))):
        RULES[rule](**parameters)


def test_staleness_never_counts_more_than_one() -> None:
    """Fresh updates count fully under each function."""
    for kind in ("constant", "hinge", "polynomial"):
        weights = [Fading(kind, 0.5, 2).weight(age) for age in range(10)]
        assert weights[0] == 1
        assert weights == sorted(weights, reverse=True)
