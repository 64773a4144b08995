"""Scaling factors: raw counts of an update's metadata; what is missing or impossible is the learner's error."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidWeight
from services.scaling import SCALERS, cap_factors

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


# ---- the cap
MOST = 2.0**53
COUNTS = st.one_of(st.integers(0, 2**53).map(float), st.floats(0, MOST), st.sampled_from([0.0, 1.0, 600.0, MOST]))


@pytest.mark.parametrize(
    ("factors", "cap", "expected"),
    [
        ([600.0, 500.0, 700.0, 400.0, MOST], 1000.0, [600.0, 500.0, 700.0, 400.0, 550_000.0]),  # of 550, the median
        ([1.0, 2.0, MOST], 2.0, [1.0, 2.0, 3.0]),  # 2 · (1 + 2) / 2
        ([1.0, MOST, 1.0, 0.0, 0.0], 10.0, [1.0, 10.0, 1.0, 0.0, 0.0]),  # what is 0 says nothing of a usual count
        ([1.0, MOST, MOST, 1.0, 1.0], 10.0, [1.0, 10.0, 10.0, 1.0, 1.0]),  # two who agree
        ([10.0, 10_000.0, 10.0], 1000.0, [10.0, 10_000.0, 10.0]),  # at the cap, not above
        ([1.0, MOST], 1000.0, [1.0, MOST]),  # of two nobody can tell which one is wrong
        ([0.0, 0.0, 5.0], 1000.0, [0.0, 0.0, 5.0]),  # nothing to compare with
        ([1.0, 1.0, MOST], None, [1.0, 1.0, MOST]),
        ([], 1000.0, []),
    ],
)
def test_a_factor_counts_at_most_the_cap(factors: list[float], cap: float | None, expected: list[float]) -> None:
    """So many times the median of the others that are above 0, from three on."""
    assert cap_factors(factors, cap) == expected


def test_factors_in_a_rule_s_state_are_compared_with_too() -> None:
    """One that comes alone is held against what counts already."""
    assert cap_factors([MOST], 1000.0) == [MOST]
    assert cap_factors([MOST], 1000.0, [600.0]) == [MOST]
    assert cap_factors([MOST], 1000.0, [600.0, 400.0]) == [500_000.0]


@given(st.lists(COUNTS, max_size=12), st.floats(1, 1e6), st.lists(COUNTS, max_size=5))
def test_the_cap_by_its_definition(factors: list[float], cap: float, beside: list[float]) -> None:
    """Worked out one by one, each without its own; 0 stays 0, nothing grows, the order of the others is no matter."""
    known = [*factors, *beside]

    def counts(at: int) -> float:
        others = [one for place, one in enumerate(known) if place != at and one > 0]
        return min(factors[at], cap * median(others)) if others and len(known) > 2 else factors[at]

    made = cap_factors(factors, cap, beside)
    assert made == pytest.approx([counts(at) for at in range(len(factors))], rel=1e-15)
    assert all(0 <= count <= factor for count, factor in zip(made, factors, strict=True))
    assert cap_factors(factors[::-1], cap, beside[::-1]) == made[::-1]


@given(st.lists(st.floats(1, 1e9), min_size=2, max_size=12), st.floats(1, 1e6))
def test_one_liar_weighs_at_most_so_many_times_an_honest_one(honest: list[float], cap: float) -> None:
    """Whatever it says, the mean moves by no more than the cap lets it; the honest count as they are."""
    reached = max(cap, math.nextafter(max(honest) / min(honest), math.inf))  # by the most of the honest ones
    *told, lie = cap_factors([*honest, MOST], reached)
    assert told == honest
    assert lie <= reached * median(honest)
