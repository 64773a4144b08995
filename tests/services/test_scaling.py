"""Scaling factors: raw counts of an update's metadata; what is missing or impossible is the learner's error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidWeight
from services.scaling import SCALERS

METADATA = {"num_training_examples": 600, "num_completed_batches": 19, "num_participants": 5}
COUNTED = {"NumTrainingExamples": "num_training_examples", "NumCompletedBatches": "num_completed_batches"}


@pytest.mark.parametrize(
    ("name", "expected"), [("NumTrainingExamples", 600.0), ("NumCompletedBatches", 19.0), ("NumParticipants", 1.0)]
)
def test_each_factor_reads_its_own_count(name: str, expected: float) -> None:
    """The factor is the raw count, not normalised; participants count 1 each."""
    assert SCALERS[name]().factor(METADATA) == expected


def test_the_factors_are_those_that_a_user_may_name() -> None:
    """Three names, letter for letter."""
    assert list(SCALERS) == ["NumTrainingExamples", "NumCompletedBatches", "NumParticipants"]


def test_participants_need_no_metadata() -> None:
    """An update without metadata counts 1."""
    assert SCALERS["NumParticipants"]().factor({}) == 1.0


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, 2**53, float(2**53)])
def test_a_count_from_0_to_2_to_the_53_is_taken(name: str, value: float) -> None:
    """0 is accepted, and the largest count that float64 holds exactly."""
    assert SCALERS[name]().factor({COUNTED[name]: value}) == float(value)


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("metadata", [{}, {"num_examples": 3}, {**dict.fromkeys(COUNTED.values())}])
def test_a_missing_count_names_its_key(name: str, metadata: dict[str, Any]) -> None:
    """No factor is made up: the sentence names the key and what may be done."""
    with pytest.raises(InvalidWeight, match=f"no '{COUNTED[name]}'.*NumParticipants") as caught:
        SCALERS[name]().factor(metadata)
    assert caught.value.values == {"key": COUNTED[name]}


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize(
    "value", [-1, -0.5, 2**53 + 1, 1e300, 2**64 - 1, float("nan"), float("inf"), float("-inf"), True, False, "60", [60]]
)
def test_an_impossible_count_names_its_key(name: str, value: Any) -> None:
    """Negative, not finite, beyond 2^53, a bool, a text: each is refused with the key and what came."""
    with pytest.raises(InvalidWeight) as caught:
        SCALERS[name]().factor({COUNTED[name]: value})
    assert COUNTED[name] in caught.value.detail
    assert caught.value.values["key"] == COUNTED[name]
    assert str(caught.value.values["got"]) == str(value)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_any_value_is_a_count_or_an_invalid_weight(value: Any) -> None:
    """A factor is always a finite number between 0 and 2^53."""
    try:
        factor = SCALERS["NumTrainingExamples"]().factor({"num_training_examples": value})
    except InvalidWeight:
        return
    assert 0 <= factor <= 2**53
