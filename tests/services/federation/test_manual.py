"""Runs that are advanced by hand: a round begins when an operator asks for it, once, however often the call comes."""

from __future__ import annotations

from typing import Any

import pytest

from services.errors import InvalidRequest, NotManual, TaskVoid
from services.federation import RunState
from tests.services.fleet import Fleet, dump, model


def by_hand(**config: Any) -> tuple[Fleet, RunState]:
    """A run of learners a and b that has model 0 and waits for its operator."""
    fleet = Fleet("a", "b")
    run = fleet.start(advance="manual", **config)
    (asked,) = [name for name in "ab" if fleet.poll(name)]
    fleet.do(asked, "init")
    return fleet, run


def advance(fleet: Fleet, number: int | None = None) -> RunState:
    """Ask for the next round."""
    return fleet.federation.next_round("current", number, fleet.now)


def test_no_round_begins_by_itself() -> None:
    """With model 0 there, and after each round, the run waits for its operator, saying what to call."""
    fleet, run = by_hand()
    fleet.stay(10_000)
    assert (run.state, run.round, fleet.poll("a")) == ("waiting", 0, None)
    assert fleet.waiting_for(run) == f"waiting for an operator to start the next round: POST /v1/runs/{run.id}/rounds"
    advance(fleet)
    assert (run.state, run.round) == ("training", 1)
    fleet.play()
    fleet.stay(10_000)
    assert (run.state, run.round) == ("waiting", 1)


def test_a_manual_run_ends_by_its_signals() -> None:
    """After its three rounds it is completed; asking for another is told that it is over."""
    fleet, run = by_hand()
    for _ in range(3):
        advance(fleet)
        fleet.play()
    assert (run.state, run.reason) == ("completed", "3 rounds are done")
    with pytest.raises(TaskVoid, match=f"run {run.id} has ended: 3 rounds are done"):
        fleet.federation.next_round(run.id, None, fleet.now)


def test_with_its_number_the_call_may_be_repeated() -> None:
    """A lost answer is no second round: asking for round 1 again, in or after it, changes nothing."""
    fleet, run = by_hand()
    advance(fleet, 1)
    during = dump(fleet.federation)
    advance(fleet, 1)
    assert dump(fleet.federation) == during
    fleet.play()
    after = dump(fleet.federation)
    advance(fleet, 1)
    assert dump(fleet.federation) == after
    assert (run.state, run.round) == ("waiting", 1)
    advance(fleet, 2)
    assert (run.state, run.round) == ("training", 2)


def test_while_a_round_goes_on_nothing_changes() -> None:
    """Without a number too: no second round is queued behind the one in progress."""
    fleet, run = by_hand()
    advance(fleet)
    before = dump(fleet.federation)
    advance(fleet)
    assert dump(fleet.federation) == before
    fleet.play()
    assert (run.state, run.round) == ("waiting", 1)


def test_a_round_that_is_not_the_next_is_refused() -> None:
    """Round 3 cannot be asked for before round 1; repeated, such a call would begin a round each time."""
    fleet, _ = by_hand()
    before = dump(fleet.federation)
    with pytest.raises(InvalidRequest, match="the next round is 1") as caught:
        advance(fleet, 3)
    assert caught.value.values == {"expected": 1, "got": 3}
    assert dump(fleet.federation) == before


def test_an_early_request_is_remembered() -> None:
    """Asked for while the run still waits for learners or weights, the first round begins as soon as it can."""
    fleet = Fleet()
    run = fleet.start(advance="manual")
    advance(fleet, 1)
    fleet.join("a")
    assert run.state == "initializing"
    advance(fleet, 1)
    fleet.do("a", "init")
    assert (run.state, run.round) == ("training", 1)
    fleet.play()
    assert run.state == "waiting"


def test_a_run_that_advances_by_itself_is_not_advanced() -> None:
    """The refusal says how to post a run that is."""
    fleet = Fleet("a")
    fleet.train()
    before = dump(fleet.federation)
    with pytest.raises(NotManual, match='advance = "manual"'):
        advance(fleet)
    assert dump(fleet.federation) == before


def test_a_round_that_is_asked_for_waits_for_enough_learners_within_a_bound() -> None:
    """With everyone gone it waits, begins when one joins, and fails when nobody does."""
    for comes in (True, False):
        fleet, run = by_hand(schedule={"join_deadline_s": 60})
        fleet.leave("a")
        fleet.leave("b")
        fleet.ids.clear()
        advance(fleet)
        assert fleet.waiting_for(run) == "waiting for 1 more of 1 learners; here: nobody; gives up in 60 s"
        fleet.wait(50)
        if comes:
            fleet.join("c")
            assert (run.state, run.round) == ("training", 1)
        else:
            fleet.wait(10)
            assert run.reason == "only 0 of 1 learners came within 60 s"


def test_with_a_model_and_learners_the_operator_is_waited_for_at_once() -> None:
    """A run that begins with a given model asks nobody for weights and holds before round 1."""
    fleet, info = Fleet("a"), model("put before")
    config = {"advance": "manual", "initial_model": info.digest, "termination": {"federation_rounds": 1}}
    run = fleet.federation.start(config, fleet.now, held={info.digest: info}.get)
    assert (run.state, run.hold, fleet.poll("a")) == ("waiting", "operator", None)
    advance(fleet)
    assert fleet.task("a").model == info


def test_evaluation_never_overlaps_a_round_that_was_not_asked_for() -> None:
    """`overlap` does not begin rounds of a manual run."""
    fleet, run = by_hand(evaluation={"overlap": True})
    advance(fleet)
    fleet.play()
    assert (run.state, run.round) == ("waiting", 1)
    assert run.rounds[0].state == "closed"
