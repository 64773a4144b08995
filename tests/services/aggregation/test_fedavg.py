"""FedAvg: numbers worked out by hand for every scaling factor and dtype, and its rounding against float64."""

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
from services.aggregation.fedavg import FedAvg
from services.errors import AggregationFailed
from services.scaling import SCALERS
from services.weights import BLOCK, DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind in "iu"]
METADATA: list[dict[str, Any]] = [
    {"num_training_examples": 1, "num_completed_batches": 2},
    {"num_training_examples": 1, "num_completed_batches": 6},
    {"num_training_examples": 2, "num_completed_batches": 8},
]


def average(arrays: Sequence[Array], factors: Sequence[float]) -> Array:
    """The FedAvg of one tensor."""
    views = [View(f"learner-{i}", [array]) for i, array in enumerate(arrays)]
    model, state = FedAvg().aggregate(views, factors)
    assert state is None
    return model[0]


def factors(scaling_factor: str) -> list[float]:
    """What three learners count by that factor."""
    return [SCALERS[scaling_factor]().factor(metadata) for metadata in METADATA]


# Updates [0, 9], [3, 0], [3, 3].
# Examples 1:1:2 = shares 1/4, 1/4, 1/2:  0.75 + 1.5 = 2.25 and 2.25 + 1.5 = 3.75
# Batches 2:6:8 = shares 1/8, 3/8, 1/2:   1.125 + 1.5 = 2.625 and 1.125 + 1.5 = 2.625
# Participants, thirds:                   6/3 = 2 and 12/3 = 4
BY_HAND = {
    "NumTrainingExamples": ([2.25, 3.75], [2, 4]),
    "NumCompletedBatches": ([2.625, 2.625], [3, 3]),
    "NumParticipants": ([2.0, 4.0], [2, 4]),
}


def test_every_scaling_factor_is_worked_out() -> None:
    """No factor is added without numbers worked out by hand here."""
    assert set(BY_HAND) == set(SCALERS)


@pytest.mark.parametrize("scaling_factor", BY_HAND)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_the_mean_is_the_one_worked_out_by_hand(dtype: str, scaling_factor: str) -> None:
    """Three updates of every numeric dtype, weighted by every scaling factor, in the tensor's own dtype."""
    updates = [np.array(values).astype(DTYPES[dtype]) for values in ([0, 9], [3, 0], [3, 3])]
    got = average(updates, factors(scaling_factor))
    exact, rounded = BY_HAND[scaling_factor]
    assert got.dtype == DTYPES[dtype]
    assert got.astype(np.float64).tolist() == (exact if dtype in FLOATS else rounded)


@pytest.mark.parametrize(
    ("scaling_factor", "expected"),
    [
        ("NumTrainingExamples", [False, True, False, False, True]),  # true weigh 2, 3, 1, 2, 4 of 4: a tie is False
        ("NumCompletedBatches", [False, True, False, False, True]),  # 8, 10, 6, 8, 16 of 16
        ("NumParticipants", [True, True, False, False, True]),  # 2, 2, 1, 1, 3 of 3
    ],
)
def test_a_bool_is_the_weighted_majority_and_a_tie_is_false(scaling_factor: str, expected: list[bool]) -> None:
    """More than half of the weight says True."""
    yes, no = True, False
    updates = [np.array(v) for v in ([yes, yes, no, no, yes], [yes, no, yes, no, yes], [no, yes, no, yes, yes])]
    got = average(updates, factors(scaling_factor))
    assert got.dtype == np.dtype(bool)
    assert got.tolist() == expected


def test_integers_are_rounded_half_to_even() -> None:
    """Means of 0.5, 1.5, 2.5, -0.5, -1.5 and -2.5 become 0, 2, 2, 0, -2 and -2."""
    first, second = np.array([0, 1, 2, -1, -2, -3]), np.array([1, 2, 3, 0, -1, -2])
    assert average([first, second], [1, 1]).tolist() == [0, 2, 2, 0, -2, -2]


def test_a_tie_of_integers_is_a_tie_whatever_the_factors_are() -> None:
    """7 and 8 weighted 60001:60001 are 7.5, which is 8; weighted 3:1 they are 7.25, which is 7."""
    assert average([np.array(7), np.array(8)], [60001, 60001]).tolist() == 8
    assert average([np.array(7), np.array(8)], [3, 1]).tolist() == 7
    assert average([np.array(0), np.array(5), np.array(10)], [0.1, 0.1, 0.1]).tolist() == 5


@given(
    value=st.integers(-(2**53), 2**53),
    counts=st.lists(st.integers(1, 100_000), min_size=2, max_size=6),
    step=st.booleans(),
)
def test_integers_are_exact_up_to_2_to_the_53(value: int, counts: list[int], step: bool) -> None:
    """What all learners agree on comes back, and the mean of neighbours is one of them, whatever the factors are."""
    lower = max(value - 1, -(2**53)) if step else value
    updates = [np.array(value), *[np.array(lower)] * (len(counts) - 1)]
    assert int(average(updates, counts)) in {value, lower}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_an_integer_dtype_do_not_wrap(dtype: str) -> None:
    """Learners that agree on the smallest and largest value get them back."""
    ends = np.iinfo(DTYPES[dtype])
    low, high = average([np.array([ends.min, ends.max], DTYPES[dtype])] * 3, [3, 5, 7]).tolist()
    assert (low, high) == (ends.min, ends.max)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_values_do_not_overflow(dtype: str) -> None:
    """The factors are normalised before the sum: finite inputs give a finite mean, with the largest factors too."""
    largest = float(ml_dtypes.finfo(DTYPES[dtype]).max)
    updates = [np.array([largest, largest, -largest]).astype(DTYPES[dtype])] * 2
    updates.append(np.array([largest, -largest, -largest]).astype(DTYPES[dtype]))
    got = average(updates, [2.0**53, 2.0**52, 2.0**53 - 1]).astype(np.float64)
    assert got[[0, 2]].tolist() == [largest, -largest]
    assert 0 < got[1] < largest


def test_a_factor_of_zero_counts_nothing() -> None:
    """An update of factor 0 changes no bit, whatever it holds; the only one that counts comes back as it is."""
    values = np.array([0.1, -0.0, 3e-320])
    others = [np.array([np.nan, np.inf, 1.0]), values, np.array([1e308] * 3)]
    assert average(others, [0, 7, 0]).tobytes() == values.tobytes()


def test_all_factors_zero_is_a_failure_with_a_reason() -> None:
    """Nothing to average is said in words; it is no division by zero."""
    with pytest.raises(AggregationFailed, match="no update has a scaling factor above 0"):
        average([np.zeros(2), np.ones(2)], [0, 0])
    with pytest.raises(AggregationFailed, match="no update has a scaling factor above 0"):
        FedAvg().aggregate([], [])


def test_every_block_of_a_large_tensor_is_averaged() -> None:
    """A tensor longer than the blocks in which it is worked on has its mean at every place."""
    for dtype in ("float32", "int32"):
        first = np.arange(9 * BLOCK + 3).astype(dtype)
        assert np.array_equal(average([first, first + 2], [1, 1]), first + 1)


def test_tensors_that_share_a_block_are_averaged_each_for_itself() -> None:
    """In a model of many small tensors of all dtypes each is, to the last bit, what it is alone."""
    draw = np.random.default_rng(1990)
    shapes: list[tuple[int, ...]] = [(), (0,), (3,), (2, 2), (70_000,)]
    order = [(name, shape) for name in [*FLOATS, *INTEGERS, "bool"] for shape in shapes] * 2
    models = [[draw.integers(0, 2, shape).astype(DTYPES[name]) for name, shape in order] for _ in range(3)]
    whole, _ = FedAvg().aggregate([View(f"{i}", one) for i, one in enumerate(models)], [3, 2, 2])
    for index, array in enumerate(whole):
        alone = average([one[index] for one in models], [3, 2, 2])
        assert (array.tobytes(), array.shape, array.dtype) == (alone.tobytes(), alone.shape, alone.dtype)


def restated(arrays: Sequence[Array], counts: Sequence[int]) -> Array:
    """The definition, in plain numpy: W = Σ q·w with q = p / Σp, in float64."""
    shares = np.array(counts, np.float64) / np.sum(np.array(counts, np.float64))
    return (shares[:, None] * np.stack([array.astype(np.float64) for array in arrays])).sum(axis=0)


FLOAT32 = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4)


@given(
    rows=st.lists(st.tuples(FLOAT32, st.integers(1, 2**53)), min_size=1, max_size=8),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_floats_are_within_one_ulp_of_float64_arithmetic(rows: list[tuple[list[float], int]], dtype: str) -> None:
    """The mean in float32 and shorter is that of float64, rounded once: within 1 ulp of the definition."""
    limits = ml_dtypes.finfo(DTYPES[dtype])
    clipped = [np.clip(np.array(row), float(limits.min), float(limits.max)).astype(DTYPES[dtype]) for row, _ in rows]
    counts = [count for _, count in rows]
    got, want = average(clipped, counts).astype(np.float64), restated(clipped, counts)
    ulp = np.maximum(np.abs(want) * float(limits.eps), float(limits.smallest_subnormal))
    cancelled = 2.0**-50 * np.max(np.abs(np.stack(clipped).astype(np.float64)), axis=0)  # float64's own rounding
    assert np.all(np.abs(got - want) <= ulp + cancelled)


@given(
    st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 2**53)), min_size=2, max_size=8)
)
def test_float64_is_near_the_exact_mean(rows: list[tuple[float, int]]) -> None:
    """In float64 the mean is finite and within a few roundings of the exact rational one."""
    got = float(average([np.array(value) for value, _ in rows], [count for _, count in rows]))
    total = sum(count for _, count in rows)
    exact = sum((Fraction(value) * count for value, count in rows), Fraction()) / total
    size = max(abs(Fraction(value)) for value, _ in rows)
    assert abs(Fraction(got) - exact) <= size * Fraction(len(rows) + 2, 2**52) + Fraction(len(rows), 2**1074)
