"""Leases: a silent learner is lost, stalls nothing, and is taken back when it is heard of; heartbeats carry news."""

from __future__ import annotations

import pytest

from services import messages as m
from services.errors import NameTaken, RoundClosed, TaskVoid
from tests.services.fleet import Fleet

LEASE = {"schedule": {"lease_s": 30}}


def state(fleet: Fleet, name: str) -> str:
    """Whether a learner is active or lost."""
    return fleet.federation.roster.get(fleet.ids[name]).state


def test_a_silent_learner_is_lost_at_the_end_of_its_lease() -> None:
    """A lease is counted from the last sign of life; polls and heartbeats are signs."""
    fleet = Fleet("a", "b", "c")
    fleet.train(**LEASE)
    fleet.stay(29, "c")
    assert {state(fleet, name) for name in "abc"} == {"active"}
    fleet.poll("a")
    fleet.wait(1)
    assert [state(fleet, name) for name in "abc"] == ["active", "lost", "active"]
    assert "b is lost: not heard of for 30 s" in [event.text for event in fleet.events()]


def test_a_lost_member_does_not_stall_the_round() -> None:
    """The quorum is there, so the round closes when the only missing member is lost, well before its deadline."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(**LEASE)
    fleet.do("a")
    fleet.do("b")
    fleet.stay(29.9, "a", "b")
    assert run.state == "training"
    fleet.stay(0.2, "a", "b")
    assert run.rounds[0].closed_by == "2 members reported, lost: c"


def test_a_lost_member_that_returns_in_time_counts() -> None:
    """Its task is still offered while the round waits for others, and its update is taken."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(**LEASE)
    fleet.do("a")
    task = fleet.task("c")
    fleet.stay(40, "a", "b")
    assert (state(fleet, "c"), run.state) == ("lost", "training")
    assert fleet.poll("c") is task
    assert state(fleet, "c") == "active"
    assert "learner-returned" in fleet.kinds()
    fleet.do("c")
    fleet.do("b")
    assert len(fleet.aggregate().shares) == 3


def test_a_lost_members_update_is_a_sign_of_life() -> None:
    """An upload from a learner that was taken for lost is taken, and it is back."""
    fleet = Fleet("a", "b")
    fleet.train(**LEASE)
    task = fleet.task("b")
    fleet.stay(40, "a")
    assert fleet.give(task)[1]
    assert state(fleet, "b") == "active"


def test_a_lost_learner_joins_the_next_round_when_it_returns() -> None:
    """It is no candidate while it is lost; its old task is told to be closed; then it trains with the others."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(**LEASE)
    old = fleet.task("c")
    fleet.do("a")
    fleet.do("b")
    fleet.stay(31, "a", "b")
    fleet.play("a", "b")
    assert [task.learner for task in run.rounds[1].train.values()] == ["a", "b"]
    with pytest.raises(RoundClosed, match="the run is at round 2"):
        fleet.federation.heartbeat(fleet.ids["c"], m.Heartbeat(task_id=old.id), fleet.now)
    assert fleet.poll("c") is None
    fleet.play("a", "b", "c")
    assert [task.learner for task in run.rounds[2].train.values()] == ["a", "b", "c"]


def test_when_all_are_lost_the_round_waits_for_them_until_its_deadline() -> None:
    """A controller that was cut off from everyone goes on when they come back, and fails in words when they do not."""
    for comes_back in (True, False):
        fleet = Fleet("a", "b")
        run = fleet.train(schedule={"lease_s": 30, "round_deadline_s": 300, "max_failed_rounds": 1})
        fleet.wait(200)
        assert (state(fleet, "a"), run.state) == ("lost", "training")
        if comes_back:
            fleet.poll("a")
            fleet.do("b")
            fleet.do("a")
            assert len(fleet.aggregate().shares) == 2
        else:
            fleet.wait(100)
            assert run.reason == "round 1: deadline: 0 updates, at least 1 needed"


def test_when_a_run_ends_the_controllers_lease_counts_at_once() -> None:
    """Who was silent for longer than that is lost with the run's end; no deadline lies in the past."""
    fleet = Fleet("a", "b")
    fleet.train(schedule={"lease_s": 1000})
    fleet.now += 100
    fleet.poll("a")
    fleet.federation.stop("current", "enough", fleet.now)
    assert (state(fleet, "a"), state(fleet, "b")) == ("active", "lost")
    assert fleet.federation.next_deadline() == fleet.now + 30


def test_a_refused_join_does_not_leave_a_lapse_half_noticed() -> None:
    """A join that is refused at the moment at which another lease lapses still lets the round close."""
    fleet = Fleet("a", "b")
    run = fleet.train(**LEASE)
    fleet.now += 20
    fleet.do("a")
    fleet.now += 15
    with pytest.raises(NameTaken):
        fleet.join("a")
    assert (state(fleet, "b"), run.state) == ("lost", "aggregating")


def test_a_heartbeat_carries_progress_while_the_task_is_wanted() -> None:
    """Progress is shown with the learner and in the log until the task is done, and cleared then."""
    fleet = Fleet("a", "b")
    fleet.train()
    task = fleet.task("a")
    beat = m.Heartbeat(task_id=task.id, progress=m.Progress(epoch=1, batch=20, loss=0.5))
    fleet.federation.heartbeat(fleet.ids["a"], beat, fleet.now)
    member = fleet.federation.roster.get(fleet.ids["a"])
    shown = fleet.federation.learner_message(member, fleet.now)
    assert (shown.task, shown.progress) == (task.id, beat.progress)
    assert "a: epoch 1, batch 20, loss 0.5" in [event.text for event in fleet.events()]
    fleet.give(task)
    fleet.federation.heartbeat(fleet.ids["a"], beat, fleet.now)
    assert fleet.federation.learner_message(member, fleet.now).progress is None


def test_a_heartbeat_tells_that_a_task_is_void() -> None:
    """A learner that works for a run that was stopped learns it at its next heartbeat."""
    fleet = Fleet("a")
    run = fleet.train()
    task = fleet.task("a")
    fleet.federation.stop(run.id, "enough", fleet.now)
    with pytest.raises(TaskVoid, match="the run ended: enough"):
        fleet.federation.heartbeat(fleet.ids["a"], m.Heartbeat(task_id=task.id), fleet.now)
