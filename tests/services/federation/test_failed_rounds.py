"""Rounds whose updates make no model: the model and the states stay, the run goes on, and ends after too many."""

from __future__ import annotations

from typing import Any

import pytest

from services.federation import Aggregation, Federation, RunState
from services.state import Recorder, Row, restore
from tests.services.fleet import EPOCH, Fleet, model

WHY = "the server optimizer's moment 'v' overflows"
NINE = {"federation_rounds": 9}
UNSEEN: dict[str, Any] = {"evaluation": {"every": 0}, "termination": NINE}
STREAM: dict[str, Any] = {"scheduler": "Asynchronous", **UNSEEN}


def due(fleet: Fleet) -> Aggregation:
    """The aggregation that must be due."""
    job = fleet.federation.due()
    assert job is not None
    return job


def trained(fleet: Fleet) -> Aggregation:
    """Everybody trains."""
    for name in fleet.ids:
        fleet.do(name)
    return due(fleet)


def fails(fleet: Fleet, job: Aggregation | None = None) -> Aggregation:
    """A round whose updates make no model."""
    job = job or trained(fleet)
    fleet.federation.round_failed(job, WHY, fleet.now)
    return job


def succeeds(fleet: Fleet, **states: Any) -> Aggregation:
    """A round that makes one, and leaves an optimizer's state."""
    job = trained(fleet)
    made = model(f"{job.run_id} {job.round}")
    fleet.federation.aggregated(job, made, (None, states or None), 0.01, fleet.now, (None, f"state-{job.round}"))
    return job


def again(fleet: Fleet) -> Federation:
    """The federation, restored of all that is written."""
    rows: list[Row] = [row for row in Recorder(fleet.federation).take().rows if row.data]
    made = Federation({}, EPOCH, lambda: "none")
    restore(made, rows)
    return made


def test_a_round_that_fails_leaves_model_and_states_as_they_were() -> None:
    """The next one trains the same model, with the state of the one before; learners are asked again at once."""
    fleet = Fleet("a", "b")
    run = fleet.train(**UNSEEN)
    succeeds(fleet, m=1)
    before, state = run.model, run.optimizer_state
    fleet.events()
    fails(fleet)
    assert (run.state, run.round, run.model, run.optimizer_state) == ("training", 3, before, state)
    shown = run.rounds[1].message(str)
    assert (shown.state, shown.model, shown.failure, shown.parent) == ("closed", None, WHY, before and before.digest)
    told = {event.kind: event for event in fleet.events()}
    assert told["round-failed"].text == (
        f"round 2 failed: {WHY}; the model stays as it was, the run goes on (1 of 3 in a row that end it)"
    )
    assert told["round-closed"].data["failure"] == WHY
    job = trained(fleet)
    assert (job.round, job.parent, job.optimizer_state, job.stored) == (3, before, state, (None, "state-1"))


@pytest.mark.parametrize(("given", "most"), [({}, 3), ({"schedule": {"max_failed_rounds": 2}}, 2)])
def test_too_many_in_a_row_end_the_run(given: dict[str, Any], most: int) -> None:
    """With a reason in words; one that makes a model in between begins the count anew."""
    fleet = Fleet("a", "b")
    run = fleet.train(**UNSEEN, **given)
    for _ in range(most - 1):
        fails(fleet)
    succeeds(fleet)
    for _ in range(most - 1):
        fails(fleet)
        assert run.state == "training"
    fails(fleet)
    last = f"the last one round {2 * most}: {WHY}"
    assert (run.state, run.ended_by) == ("failed", "failure")
    assert run.reason == f"{most} rounds in a row made no model (schedule.max_failed_rounds), {last}"
    assert run.message(str, None).model == run.rounds[most - 1].message(str).model


def test_one_may_be_enough() -> None:
    """As it was before there was a choice."""
    fleet = Fleet("a")
    run = fleet.train(**UNSEEN, schedule={"max_failed_rounds": 1})
    fails(fleet)
    assert (run.state, run.reason) == ("failed", f"round 1: {WHY}")


def test_rounds_that_failed_are_none_of_those_that_are_to_be_made() -> None:
    """`federation_rounds` counts models."""
    fleet = Fleet("a", "b")
    run = fleet.train(evaluation={"every": 0}, termination={"federation_rounds": 2})
    for step in (fails, succeeds, fails, fails, succeeds):
        assert run.state == "training"
        step(fleet)
    assert (run.state, run.reason, run.round, run.aggregations) == ("completed", "2 rounds are done", 5, 2)


def test_a_run_that_evaluates_while_it_trains_ends_with_its_last_model() -> None:
    """The evaluation of the model before may still be open when a round fails, and does not end the run."""
    fleet = Fleet("a", "b")
    run = fleet.train(evaluation={"overlap": True}, termination={"federation_rounds": 2})
    succeeds(fleet)
    assert [fleet.task(name, "evaluate").kind for name in "ab"] == ["evaluate", "evaluate"]
    train = [task for task in run.rounds[1].train.values()]
    for task in train:
        fleet.give(task)
    fails(fleet, due(fleet))
    assert (run.state, run.round) == ("training", 3)
    for name in "ab":
        fleet.do(name, "evaluate", accuracy=0.5)
    assert (run.state, run.rounds[0].state) == ("training", "closed")
    succeeds(fleet)
    for name in "ab":
        fleet.do(name, "evaluate", accuracy=0.6)
    assert (run.state, run.aggregations, run.best and run.best[0]) == ("completed", 2, 3)


def test_a_run_that_is_driven_by_hand_waits_for_its_operator() -> None:
    """Who sees that the round failed."""
    fleet = Fleet("a")
    run = fleet.train(**UNSEEN, advance="manual")
    fleet.federation.next_round(run.id, 1, fleet.now)
    fails(fleet)
    assert (run.state, run.hold) == ("waiting", "operator")
    fleet.federation.next_round(run.id, 2, fleet.now)
    assert (run.state, run.round) == ("training", 2)


def test_bounds_of_transforms_stay_those_of_their_round() -> None:
    """A round's updates are changed with the bound that was in force when it began, whatever failed before."""
    fleet = Fleet("a")
    run = fleet.train(**UNSEEN, transforms=[{"name": "AdaptiveClipNorm", "initial_norm": 0.5}])
    fails(fleet)
    assert run.bounds == [(0.5,), (0.5,)]
    task = fleet.task("a")
    assert run.bounds[task.round - 1] == (0.5,)
    assert again(fleet).runs[run.id].bounds == run.bounds


def test_a_failed_round_outlives_a_restart() -> None:
    """And so does how many failed in a row."""
    fleet = Fleet("a", "b")
    run = fleet.train(**UNSEEN)
    fails(fleet)
    fails(fleet)
    made = again(fleet).runs[run.id]
    assert [one.message(str) for one in made.rounds] == [one.message(str) for one in run.rounds]
    assert (made.failures, made.state, made.round) == (2, "training", 3)


def test_updates_of_a_commit_that_failed_are_in_no_state() -> None:
    """FedRec: what a learner sends next does not take out what never came in; a learner whose update was in the state
    and that left is still to be counted out."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(**STREAM, aggregation_rule="FedRec")
    for name in "ab":
        fleet.do(name)
        fleet.aggregate()
    fleet.do("a")
    first = run.stream.newest[fleet.ids["a"]]
    fails(fleet, due(fleet))
    assert run.stream.newest[fleet.ids["a"]] == first
    fleet.do("a")
    (share,) = due(fleet).shares
    assert share.previous == first
    fleet.federation.round_failed(Aggregation(run.id, 4, *_rest(run)), WHY, fleet.now)
    fleet.leave("b")
    fleet.do("a")
    job = due(fleet)
    assert (job.aggregator_state, [one.learner for one in job.shares]) == (None, ["a"])
    fails(fleet, job)
    assert run.over  # three in a row


def test_a_rule_that_was_to_begin_anew_still_is() -> None:
    """When the aggregation that does so fails."""
    fleet = Fleet("a", "b")
    run = fleet.train(**STREAM, aggregation_rule="FedRec")
    for name in "ab":
        fleet.do(name)
        fleet.aggregate()
    fleet.leave("b")
    fleet.do("a")
    fails(fleet, due(fleet))
    assert run.stream.left
    fleet.do("a")
    assert due(fleet).aggregator_state is None


def test_a_commit_that_failed_makes_no_update_older() -> None:
    """Staleness counts models; who trained from the newest one is not stale, and the deadline of the next model runs
    on."""
    fleet = Fleet("a", "b")
    run = fleet.train(
        **{**STREAM, "schedule": {"max_staleness": 0, "round_deadline_s": 100}}, aggregation_rule="FedAsync"
    )
    fleet.do("a")
    old = fleet.task("b")
    fails(fleet, due(fleet))
    fleet.give(old)
    assert [one.staleness for one in due(fleet).shares] == [0]
    fails(fleet, Aggregation(run.id, 2, *_rest(run)))
    assert [fleet.task(name).round for name in "ab"] == [2, 3]
    fleet.stay(99, "a", "b")
    assert not run.over
    fleet.stay(2, "a", "b")
    assert (run.state, "no community model came about within 100 s" in (run.reason or "")) == ("failed", True)


def test_a_task_is_given_up_for_models_that_were_made() -> None:
    """Not for commits that failed: b trains from a model that is one older than the newest, as it may."""
    fleet = Fleet("a", "b")
    run = fleet.train(**{**STREAM, "schedule": {"max_staleness": 1}}, aggregation_rule="FedAsync")
    fleet.do("a")
    old = fleet.task("b")
    fails(fleet, due(fleet))
    fleet.do("a")
    fleet.aggregate()
    assert (run.finished, run.aggregations, old.state) == (2, 1, "offered")
    fleet.do("a")
    fleet.aggregate()
    assert old.state == "void"


def test_an_update_that_made_no_model_is_released_once() -> None:
    """It becomes its learner's newest when its commit fails; at the end of the run it would go past newer ones."""
    fleet = Fleet("a", "b")
    run = fleet.train(**STREAM, aggregation_rule="FedAsync")
    first = fleet.do("a")
    fails(fleet, due(fleet))
    second = fleet.do("a")
    fleet.aggregate()
    fleet.federation.stop(run.id, "enough", fleet.now)
    blobs = [task.outcome.blob for task in (first, second) if task.outcome]
    assert fleet.federation.released == [(fleet.ids["a"], blob) for blob in blobs]


def test_what_comes_late_of_a_run_that_ended_is_ignored() -> None:
    """As with a model."""
    fleet = Fleet("a")
    run = fleet.train(**UNSEEN)
    job = trained(fleet)
    fleet.federation.stop(run.id, "enough", fleet.now)
    fails(fleet, job)
    assert (run.reason, run.rounds[0].failure) == ("enough", None)


def _rest(run: RunState) -> Any:
    """What a job holds beside its run and round; none of it is looked at when it failed."""
    return run.rounds[-1].parent, (), run.plan, None, None
