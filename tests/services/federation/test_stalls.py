"""Time in which nobody could report: leases and deadlines are later by it, the time of day is not."""

from __future__ import annotations

import pytest

from tests.services.fleet import Fleet

SHORT = {"schedule": {"lease_s": 30, "round_deadline_s": 100, "join_deadline_s": 100, "min_updates": 1}}
STALL_S = 1000.0


def stall(fleet: Fleet, seconds: float = STALL_S) -> None:
    """The time passes, and counts for nobody."""
    fleet.now += seconds
    fleet.federation.extend(seconds, fleet.now, write=True)
    fleet.federation.tick(fleet.now)


def states(fleet: Fleet) -> dict[str, str]:
    """Who is active, who is lost."""
    return {one.name: one.state for one in fleet.federation.roster}


def test_a_lease_is_as_long_after_it_as_before() -> None:
    """Twenty of thirty seconds were over: ten are left. Who was lost stays lost."""
    fleet = Fleet("a", "b", "c")
    fleet.train(**SHORT)
    fleet.stay(40, "a", "b")
    fleet.poll("b")
    fleet.stay(20, "a")
    stall(fleet, 25.0)
    assert states(fleet) == {"a": "active", "b": "active", "c": "lost"}
    fleet.stay(9.9, "a")
    assert states(fleet)["b"] == "active"
    fleet.stay(0.2, "a")
    assert states(fleet)["b"] == "lost"


def test_after_a_stall_of_a_whole_lease_everybody_has_one() -> None:
    """As after a restart: who could not get through waits a while before it tries again. Who was lost stays lost."""
    fleet = Fleet("a", "b", "c")
    fleet.train(**SHORT)
    fleet.stay(40, "a", "b")
    fleet.poll("b")
    fleet.stay(20, "a")
    stall(fleet, 30.0)
    fleet.stay(29.9, "a")
    assert states(fleet) == {"a": "active", "b": "active", "c": "lost"}
    fleet.stay(0.2, "a")
    assert states(fleet)["b"] == "lost"


def test_nobody_was_heard_of_later_than_now() -> None:
    """Who reported within what is then counted as a stall was heard of at most now."""
    fleet = Fleet("a")
    fleet.federation.extend(20.0, fleet.now + 1.0, write=True)
    assert fleet.federation.roster.get(fleet.ids["a"]).last_seen == fleet.now + 1.0


def test_a_round_closes_as_much_later() -> None:
    """Sixty of a hundred seconds were over: it closes after forty more, not at once."""
    fleet = Fleet("a", "b")
    run = fleet.train(**SHORT)
    fleet.do("a")
    fleet.stay(60, "a", "b")
    task = fleet.task("b")
    stall(fleet)
    assert run.state == "training"
    assert task.deadline == run.rounds[0].deadline
    assert fleet.federation.task_message(task, fleet.now).expires_in_s == pytest.approx(40.0)
    fleet.stay(39.9, "a", "b")
    assert run.state == "training"
    fleet.stay(0.2, "a", "b")
    assert run.rounds[0].closed_by == "deadline, with 1 updates"


def test_an_evaluation_and_the_wait_for_learners_end_as_much_later() -> None:
    """And the next learner is asked for the first model as much later."""
    fleet = Fleet("a")
    run = fleet.start(min_learners=2, **SHORT)
    fleet.stay(60, "a")
    stall(fleet)
    assert run.state == "waiting"
    fleet.join("b")
    assert run.state == "initializing"
    stall(fleet)
    assert len(run.initial) == 1
    (asked,) = [name for name in "ab" if fleet.poll(name)]
    fleet.do(asked, "init")
    for name in "ab":
        fleet.do(name)
    fleet.aggregate()
    fleet.do("a", "evaluate")
    stall(fleet)
    assert run.state == "evaluating"
    fleet.do("b", "evaluate")
    assert run.round == 2


def test_an_asynchronous_run_gives_up_as_much_later() -> None:
    """Neither its tasks nor the run are over."""
    fleet = Fleet("a", "b")
    run = fleet.train(
        scheduler="Asynchronous", aggregation_rule="FedBuff", aggregation={"buffer_size": 2}, schedule=SHORT["schedule"]
    )
    stall(fleet)
    for name in "ab":
        fleet.do(name)
    assert len(fleet.aggregate().shares) == 2
    assert not run.over


def test_the_time_of_day_goes_on() -> None:
    """A run ends at the minute that it was given."""
    fleet = Fleet("a")
    run = fleet.train(termination={"execution_cutoff_time_mins": 10}, **SHORT)
    stall(fleet)
    assert (run.state, run.ended_by) == ("completed", "execution_cutoff_time_mins")


def test_what_was_moved_is_written_down_when_it_is_to_be() -> None:
    """The run and the open tasks, or nothing."""
    fleet = Fleet("a", "b")
    run = fleet.train(**SHORT)
    fleet.do("a")
    task = fleet.task("b")
    changes = fleet.federation.changes
    changes.clear()
    fleet.federation.extend(0.1, fleet.now, write=False)
    assert not changes
    fleet.federation.extend(0.1, fleet.now, write=True)
    assert (changes.runs, changes.tasks) == ({run.id}, {task.id})
