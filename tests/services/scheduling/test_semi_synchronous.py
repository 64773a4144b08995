"""SemiSynchronous: step budgets from the times that learners report, so that all train for about as long."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from services.config import resolve
from services.errors import InvalidWeight
from services.federation import RunState, plan
from services.scheduling import budgets
from tests.services.fleet import Fleet, outcome

SEMI: dict[str, Any] = {"scheduler": "SemiSynchronous", "evaluation": {"every": 0}}
SLOW = {"processing_ms_per_batch": 50.0, "processing_ms_per_epoch": 500.0}
TIMES = {"fast": (10.0, 100.0), "slow": (50.0, 500.0)}  # ms per batch, ms per epoch


def budget(fleet: Fleet, name: str) -> Any:
    """What the learner's next task says."""
    return fleet.federation.task_message(fleet.task(name), fleet.now).config.get("num_local_updates")


def report(fleet: Fleet, name: str, per_batch: float, per_epoch: float) -> None:
    """An update with its times."""
    task = fleet.task(name)
    metadata = {"processing_ms_per_batch": per_batch, "processing_ms_per_epoch": per_epoch}
    result = outcome(task)
    fleet.federation.accept(
        task.id, type(result)(result.fingerprint, result.size, {}, metadata, 1.0, result.blob), fleet.now
    )


def round_of(fleet: Fleet, times: dict[str, tuple[float, float]]) -> None:
    """Everybody reports."""
    for name, (per_batch, per_epoch) in times.items():
        report(fleet, name, per_batch, per_epoch)
    fleet.aggregate()


def started(**schedule: Any) -> tuple[Fleet, RunState]:
    """Two learners whose run has begun."""
    fleet = Fleet(*TIMES)
    run = fleet.train(**SEMI, schedule={"semi_sync_lambda": 2.0, **schedule}, termination={"federation_rounds": 9})
    return fleet, run


def test_round_1_has_no_budget_and_then_all_train_as_long_as_the_slowest() -> None:
    """lambda 2: 1000 ms, that is 100 batches of 10 ms or 20 of 50."""
    fleet, _ = started()
    assert [budget(fleet, name) for name in TIMES] == [None, None]
    round_of(fleet, TIMES)
    assert [budget(fleet, name) for name in TIMES] == [100, 20]


def test_budgets_stay_unless_they_are_to_be_made_anew() -> None:
    """Other times later change nothing; with recompute they do."""
    later = {"fast": (20.0, 200.0), "slow": (50.0, 300.0)}
    for recompute, want in ((False, [100, 20]), (True, [30, 12])):
        fleet, _ = started(semi_sync_recompute_num_updates=recompute)
        round_of(fleet, TIMES)
        round_of(fleet, later)
        assert [budget(fleet, name) for name in TIMES] == want


def test_who_misses_a_round_is_still_the_slowest() -> None:
    """Its newest known times count on, so that the others' budgets do not jump; those of one that left do not."""
    rounds = [
        {"fast": {"processing_ms_per_batch": 10.0, "processing_ms_per_epoch": 100.0}, "slow": SLOW},
        {"fast": {"processing_ms_per_batch": 10.0, "processing_ms_per_epoch": 100.0}},
    ]
    assert budgets(rounds, ["fast", "slow"], 2.0, True) == {"fast": 100, "slow": 20}
    assert budgets(rounds, ["fast"], 2.0, True) == {"fast": 20}


@pytest.mark.parametrize("scale", [3.0, 0.7, 1.1])
def test_exact_multiples_take_no_step_more(scale: float) -> None:
    """3 epochs of 1.1 ms in batches of 0.1 ms are 33 batches, however the quotient is rounded."""
    for batches in range(1, 400):
        times = {"processing_ms_per_batch": 0.1, "processing_ms_per_epoch": 0.1 * batches}
        want = max(1, math.ceil(Fraction(str(scale)) * batches))
        assert budgets([{"a": times}], ["a"], scale, True) == {"a": want}, batches


def test_a_budget_is_at_least_one_step_and_a_joiner_has_none_at_first() -> None:
    """A batch that takes longer than the whole budget; a learner whose times nobody knows."""
    fleet, _ = started(semi_sync_lambda=0.01)
    round_of(fleet, TIMES)
    assert [budget(fleet, name) for name in TIMES] == [1, 1]
    fleet.join("new")
    round_of(fleet, TIMES)
    assert budget(fleet, "new") is None
    round_of(fleet, {**TIMES, "new": (1.0, 10.0)})
    assert budget(fleet, "new") == 5


@pytest.mark.parametrize("key", ["processing_ms_per_batch", "processing_ms_per_epoch"])
@pytest.mark.parametrize("value", [None, 0, -1.0, "fast", True])
def test_an_update_without_its_times_is_refused(key: str, value: Any) -> None:
    """The key is named."""
    parts = plan(resolve({}, {**SEMI, "schedule": {"semi_sync_lambda": 1}, "termination": {"federation_rounds": 1}}))
    times = {"processing_ms_per_batch": 1.0, "processing_ms_per_epoch": 1.0}
    parts.check_update(times, {})
    with pytest.raises(InvalidWeight, match=key):
        parts.check_update({**times, key: value}, {})
