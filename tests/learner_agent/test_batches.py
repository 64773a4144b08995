"""The batches of a task: how many, over which epochs, how long each took; by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_agent import TimedBatches


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Unsized:
    """Batches whose number nobody knows; each epoch in another order."""

    def __init__(self, *batches: int) -> None:
        self.batches = list(batches)
        self.epochs = 0

    def __iter__(self) -> Iterator[int]:
        self.epochs += 1
        return iter(self.batches if self.epochs % 2 else self.batches[::-1])


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({}, "abc"),
        ({"epochs": 2}, "abcabc"),
        ({"epochs": None, "num_local_updates": None}, "abc"),
        ({"num_local_updates": 1}, "a"),
        ({"num_local_updates": 3}, "abc"),
        ({"num_local_updates": 7, "epochs": 1}, "abcabca"),
    ],
)
def test_so_many_batches(config: dict[str, Any], seen: str) -> None:
    """One epoch, the epochs asked for, or exactly the budget, which goes before the epochs."""
    batches = TimedBatches("abc", config)
    assert "".join(batches) == seen
    assert batches.metadata["num_completed_batches"] == len(seen)


@given(st.integers(1, 9), st.integers(1, 30))
def test_a_budget_is_kept_exactly(length: int, budget: int) -> None:
    """Whatever an epoch has; in the order of the epochs."""
    batches = TimedBatches(list(range(length)), {"num_local_updates": budget})
    assert list(batches) == [index % length for index in range(budget)]
    assert batches.metadata["num_completed_batches"] == budget


def test_no_batch_is_loaded_beyond_the_budget() -> None:
    """Loading one may take long."""
    loaded: list[int] = []

    class Loader:
        def __iter__(self) -> Iterator[int]:
            for index in range(5):
                loaded.append(index)
                yield index

    assert list(TimedBatches(Loader(), {"num_local_updates": 2})) == [0, 1]
    assert loaded == [0, 1]


def test_times_by_hand() -> None:
    """Five batches of 10, 10, 10, 10 and 60 ms: 20 ms each, 60 ms an epoch of three."""
    clock = Clock()
    batches = TimedBatches("abc", {"num_local_updates": 5}, clock)
    for number, _ in enumerate(batches):
        clock.now += 0.06 if number == 4 else 0.01
    clock.now += 99  # what comes after the last batch is not its time
    assert batches.metadata == {
        "num_completed_batches": 5,
        "processing_ms_per_batch": pytest.approx(20),
        "processing_ms_per_epoch": pytest.approx(60),
    }


def test_an_epoch_without_a_length_is_counted() -> None:
    """Known once one is over; each epoch is gone through anew."""
    clock, source = Clock(), Unsized(1, 2, 3, 4)
    batches = TimedBatches(source, {"num_local_updates": 6}, clock)
    seen = []
    for batch in batches:
        seen.append(batch)
        clock.now += 0.002
    assert seen == [1, 2, 3, 4, 4, 3]
    assert batches.metadata["processing_ms_per_epoch"] == pytest.approx(8)
    short = TimedBatches(source, {"num_local_updates": 2})
    assert len(list(short)) == 2
    assert set(short.metadata) == {"num_completed_batches", "processing_ms_per_batch"}


def test_a_task_that_was_given_up_counts_what_was_done() -> None:
    """The batch in which the loop was left is not one of them; before the first there are no times."""
    batches = TimedBatches("abc", {})
    assert batches.metadata == {"num_completed_batches": 0}
    for batch in batches:
        if batch == "c":
            break
    assert batches.metadata["num_completed_batches"] == 2


def test_going_over_them_again_begins_anew() -> None:
    """As a list does."""
    batches = TimedBatches("abc", {"num_local_updates": 2})
    assert list(batches) == list(batches) == ["a", "b"]
    assert batches.metadata["num_completed_batches"] == 2


@pytest.mark.parametrize("config", [{}, {"epochs": 2}, {"num_local_updates": 3}])
def test_no_data_is_an_error_and_no_endless_loop(config: dict[str, Any]) -> None:
    """An empty loader, and one that is used up after its first epoch."""
    with pytest.raises(ValueError, match="there is no batch"):
        list(TimedBatches([], config))
    if config:
        with pytest.raises(ValueError, match="gone through only once"):
            list(TimedBatches(iter("ab"), config))


@pytest.mark.parametrize("key", ["epochs", "num_local_updates"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_number_that_cannot_be_is_refused(key: str, value: Any) -> None:
    """By its name, before any training."""
    with pytest.raises(ValueError, match=f"{key} must be a whole number"):
        TimedBatches("abc", {key: value})
