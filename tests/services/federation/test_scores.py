"""Combining scores: weighted by evaluation examples where they are told, plain where not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.federation.scores import Score, combine, evaluation_score


def combined(*scores: tuple[dict[str, Any], float | None]) -> dict[str, float | None]:
    """The combined metrics of learners a, b, c, …"""
    return combine([Score("abcdefgh"[i], metrics, weight) for i, (metrics, weight) in enumerate(scores)]).combined


def test_scores_are_weighted_by_examples() -> None:
    """0.5 of 100 and 0.9 of 300 rows are 0.8 of 400."""
    assert combined(({"accuracy": 0.5}, 100), ({"accuracy": 0.9}, 300)) == {"accuracy": pytest.approx(0.8)}


@pytest.mark.parametrize("weights", [(None, None), (100, None), (0, 0)])
def test_without_weights_to_compare_the_mean_is_plain(weights: tuple[float | None, float | None]) -> None:
    """A learner that told no number of examples is not left out, and nothing is divided by zero."""
    assert combined(({"loss": 1.0}, weights[0]), ({"loss": 3.0}, weights[1])) == {"loss": 2.0}


def test_who_tells_no_weight_changes_nobody_elses() -> None:
    """It counts as the median of the others; one that has looked at 0 examples does not count."""
    told = [({"x": 0.0}, 10.0), ({"x": 1.0}, 30.0), ({"x": 1.0}, 20.0)]
    assert combined(*told, ({"x": 0.5}, None)) == {"x": pytest.approx((50 + 10) / 80)}
    assert combined(*told, ({"x": 0.5}, 0.0)) == {"x": pytest.approx(50 / 60)}


@given(st.floats(allow_nan=False, allow_infinity=False), st.lists(st.integers(0, 2**53), min_size=1, max_size=8))
def test_equal_scores_combine_to_themselves(value: float, weights: list[int]) -> None:
    """0.9, 0.9 and 0.9 are 0.9: a target of it is reached."""
    assert combined(*(({"x": value}, float(weight)) for weight in weights)) == {"x": value}


def test_a_metric_is_the_mean_over_those_that_report_it() -> None:
    """A null, or a learner that does not know the metric, does not count in it; all nulls are a null."""
    got = combined(({"loss": 1.0, "auc": None}, 1), ({"loss": None, "auc": None, "f1": 0.5}, 3))
    assert got == {"loss": 1.0, "auc": None, "f1": 0.5}


def test_scores_at_the_end_of_the_floats_do_not_fail() -> None:
    """A mean of the largest is no error and no infinity."""
    largest = 1.7976931348623157e308
    (got,) = combined(*[({"x": largest}, weight) for weight in (0.1, 0.7, 0.3, 0.9)]).values()
    assert got == largest


def test_nobody_is_nothing() -> None:
    """No scores combine to no metrics."""
    assert combine([]).combined == {}


def test_scores_are_reported_in_the_order_of_names() -> None:
    """Who answered first changes nothing."""
    first, second = Score("b", {"loss": 0.1}, 3), Score("a", {"loss": 0.7}, 7)
    assert combine([first, second]) == combine([second, first])
    assert list(combine([first, second]).learners) == ["a", "b"]
    assert combine([first, second]).learners == {"a": {"loss": 0.7}, "b": {"loss": 0.1}}


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.none() | st.floats(0, 2**53)),
        min_size=1,
        max_size=8,
    )
)
def test_a_combined_score_lies_between_the_scores(scores: list[tuple[float, float | None]]) -> None:
    """It is a mean, and finite; one learner's score is its own."""
    (got,) = combined(*(({"x": value}, weight) for value, weight in scores)).values()
    values = [value for value, _ in scores]
    assert got is not None
    assert min(values) <= got <= max(values)
    if len(scores) == 1:
        assert got == values[0]


@pytest.mark.parametrize(
    ("metrics", "metadata", "weight"),
    [
        ({"accuracy": 0.5}, {"num_evaluation_examples": 300}, 300.0),
        ({"accuracy": 0.5, "num_evaluation_examples": 200}, {}, 200.0),
        ({"accuracy": 0.5, "num_evaluation_examples": 200}, {"num_evaluation_examples": 300}, 300.0),
        ({"accuracy": 0.5}, {"num_evaluation_examples": 0}, 0.0),
        ({"accuracy": 0.5}, {}, None),
        ({"accuracy": 0.5}, {"num_evaluation_examples": -1}, None),
        ({"accuracy": 0.5}, {"num_evaluation_examples": True}, None),
        ({"accuracy": 0.5}, {"num_evaluation_examples": "300"}, None),
        ({"accuracy": 0.5}, {"num_evaluation_examples": math.inf}, None),
        ({"accuracy": 0.5}, {"num_evaluation_examples": 10**400}, None),
        ({"accuracy": 0.5}, {"num_evaluation_examples": math.nan}, None),
        ({"accuracy": 0.5, "num_evaluation_examples": None}, {}, None),
        ({"accuracy": 0.5, "num_evaluation_examples": 200}, {"num_evaluation_examples": None}, 200.0),
        ({"accuracy": 0.5, "num_evaluation_examples": 200}, {"num_evaluation_examples": 0}, 0.0),
    ],
)
def test_the_weight_comes_from_metadata_else_metrics(
    metrics: dict[str, float | None], metadata: dict[str, Any], weight: float | None
) -> None:
    """The number of examples weighs the scores and is itself no score; what is no count is as if it were not told."""
    assert evaluation_score("a", metrics, metadata) == Score("a", {"accuracy": 0.5}, weight)
