"""What the federation shows and keeps: words for every wait, tasks as messages, the models that are needed."""

from __future__ import annotations

import pytest

from services import messages as m
from services.federation.representation import seed_of
from tests.services.fleet import Fleet


def test_every_wait_says_for_whom_and_for_how_long() -> None:
    """From the first learner to the last score there is a sentence that names who is missing and the bound."""
    fleet = Fleet("a")
    run = fleet.start(min_learners=2, schedule={"join_deadline_s": 60, "round_deadline_s": 100})
    assert fleet.waiting_for(run) == "waiting for 1 more of 2 learners; here: a; gives up in 60 s"
    fleet.join("b")
    (asked,) = [name for name in "ab" if fleet.poll(name)]
    fleet.stay(10)
    assert fleet.waiting_for(run) == (
        f"waiting for initial weights: {asked}, last seen 0 s ago, asks the next learner in 90 s"
    )
    fleet.do(asked, "init")
    fleet.do("a")
    fleet.stay(15, "a", every=5)
    assert fleet.waiting_for(run) == "waiting for 1 more of 2: b, last seen 15 s ago, round closes in 85 s"
    fleet.stay(10, "a", every=5)
    fleet.do("b")
    assert fleet.waiting_for(run) == "aggregating 2 updates into model 1"
    fleet.aggregate()
    fleet.stay(10, "a", every=5)
    both = "waiting for 2 more of 2 evaluations of model 1: a, last seen 0 s ago; b, last seen 10 s ago;"
    assert fleet.waiting_for(run) == f"{both} goes on in 90 s"
    fleet.do("a", "evaluate")
    assert fleet.waiting_for(run) == (
        "waiting for 1 more of 2 evaluations of model 1: b, last seen 10 s ago, goes on in 90 s"
    )
    fleet.federation.stop(run.id, "enough", fleet.now)
    assert fleet.waiting_for(run) is None


def test_learners_that_are_lost_are_named_while_a_run_waits_for_its_learners() -> None:
    """After half of the federation went away it is said who is missing, those that were heard of last first."""
    fleet = Fleet("a", "b", "c", "d", "e", "f")
    fleet.stay(20, "b", every=5)
    fleet.stay(35, "a", every=5)
    run = fleet.start(min_learners=3, schedule={"join_deadline_s": 60})
    assert fleet.waiting_for(run) == (
        "waiting for 2 more of 3 learners; here: a; not heard of: b (lost), last seen 35 s ago; c (lost), last seen"
        " 55 s ago; d (lost), last seen 55 s ago; 2 others; gives up in 60 s"
    )


def test_model_0_and_overlapping_rounds_say_what_they_wait_for() -> None:
    """The evaluation of model 0; while a round trains beside an evaluation the round is what is waited for."""
    fleet = Fleet("a", "b")
    run = fleet.train(evaluation={"initial": True, "overlap": True}, schedule={"round_deadline_s": 100})
    both = "a, last seen 0 s ago; b, last seen 0 s ago;"
    assert fleet.waiting_for(run) == f"waiting for 2 more of 2 evaluations of model 0: {both} goes on in 100 s"
    fleet.do("a", "evaluate")
    fleet.do("b", "evaluate")
    fleet.do("a")
    fleet.do("b")
    fleet.aggregate()
    assert fleet.waiting_for(run) == f"waiting for 2 more of 2: {both} round closes in 100 s"


def test_a_run_with_a_time_limit_says_when_it_ends_at_the_latest() -> None:
    """Also while it waits for its operator, who has no deadline of his own."""
    fleet = Fleet("a")
    run = fleet.train(advance="manual", termination={"execution_cutoff_time_mins": 2})
    fleet.stay(30)
    told = f"waiting for an operator to start the next round: POST /v1/runs/{run.id}/rounds"
    assert fleet.waiting_for(run) == f"{told}; the run ends in 90 s"


def test_a_task_is_told_with_relative_times_and_urls() -> None:
    """No clock and no origin is shared: it expires in so many seconds, and its urls begin at the poll's path."""
    fleet = Fleet("a")
    run = fleet.train(train={"learning_rate": 0.1}, schedule={"round_deadline_s": 100, "lease_s": 30})
    fleet.stay(10)
    task = fleet.task("a")
    assert run.model is not None
    assert fleet.federation.task_message(task, fleet.now) == m.Task(
        id=task.id,
        kind="train",
        run_id=run.id,
        round=1,
        model=m.Reference(digest=run.model.digest, url=f"../../models/{run.model.digest}", size=run.model.size),
        result=m.ResultTarget(url=f"../../tasks/{task.id}/result"),
        config={"learning_rate": 0.1, "round": 1, "seed": seed_of(1990, 1, "a")},
        expires_in_s=90.0,
        heartbeat_s=10.0,
    )


def test_evaluation_and_initial_weights_have_their_own_parameters() -> None:
    """`evaluate` reaches evaluations, `train` the initial weights and the training; the round is always there."""
    fleet = Fleet("a")
    fleet.start(train={"x": 1, "round": 99}, evaluate={"y": 2})
    init = fleet.federation.task_message(fleet.task("a", "init"), fleet.now)
    assert (init.model, init.round, init.config) == (None, 0, {"x": 1, "round": 0, "seed": seed_of(1990, 0, "a")})
    fleet.do("a", "init")
    fleet.do("a")
    fleet.aggregate()
    evaluate = fleet.federation.task_message(fleet.task("a", "evaluate"), fleet.now)
    assert evaluate.config == {"y": 2, "round": 1, "seed": seed_of(1990, 1, "a")}


def test_the_seed_of_a_task_follows_from_run_round_and_learner() -> None:
    """Below 2³², and another one for each; a run whose parameters have one gives that."""
    drawn = {seed_of(run, number, name) for run in (1, 2) for number in (1, 2) for name in ("a", "b")}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**32 for seed in drawn)
    assert seed_of(1990, 1, "bob") == 3418754198  # as the documentation has it
    fleet = Fleet("a")
    fleet.start(train={"seed": 7})
    assert fleet.federation.task_message(fleet.task("a", "init"), fleet.now).config == {"seed": 7, "round": 0}


def test_a_task_is_offered_until_it_is_done() -> None:
    """A lost reply loses nothing: every poll gets the same task until there is a result."""
    fleet = Fleet("a", "b")
    fleet.train()
    first = fleet.task("a")
    fleet.stay(20)
    assert fleet.task("a") is first
    assert first.fetched_at is not None
    assert first.fetched_at < fleet.now
    fleet.give(first)
    assert fleet.poll("a") is None


def test_learners_are_woken_when_their_offer_changes() -> None:
    """Exactly those whose tasks changed are in `woken`: all at the start of a round, nobody at a heartbeat."""
    fleet = Fleet("a", "b")
    fleet.train()
    woken = fleet.federation.offers.woken
    assert woken == set(fleet.ids.values())
    woken.clear()
    fleet.federation.heartbeat(fleet.ids["a"], m.Heartbeat(), fleet.now)
    assert woken == set()
    fleet.leave("b")
    assert woken == {fleet.ids["b"]}


def test_the_models_that_are_needed_are_kept() -> None:
    """The newest two, the best, and every model that an open task names; no more."""
    fleet = Fleet("a")
    run = fleet.train(termination={"federation_rounds": 9})
    assert run.model is not None
    zero = run.model.digest
    assert fleet.federation.kept_models() == {zero}
    fleet.play(accuracy=0.9)
    fleet.play(accuracy=0.5)
    fleet.play(accuracy=0.6)
    digests = [one.model.digest for one in run.rounds if one.model]
    assert fleet.federation.kept_models() == {digests[0], digests[1], digests[2]}  # best, previous, newest
    fleet.play(accuracy=0.7)
    digests = [one.model.digest for one in run.rounds if one.model]
    assert fleet.federation.kept_models() == {digests[0], digests[2], digests[3]}
    fleet.do("a")
    assert {fleet.aggregate().parent.digest, fleet.task("a", "evaluate").model.digest} <= (  # type: ignore[union-attr]
        fleet.federation.kept_models()
    )


def test_the_models_of_evaluations_that_overlap_are_kept() -> None:
    """However many rounds train meanwhile, a slow evaluation of an old model still finds it; done, it is let go."""
    fleet = Fleet("a", "b")
    run = fleet.train(evaluation={"overlap": True}, termination={"federation_rounds": 9})
    for number in range(5):
        for task in list(run.rounds[number].train.values()):
            fleet.give(task)
        fleet.aggregate()
    digests = [one.model.digest for one in run.rounds if one.model]
    assert len(digests) == 5
    assert set(digests) <= fleet.federation.kept_models()
    for one in run.rounds[:5]:
        for task in list(one.evaluate.values()):
            fleet.give(task)
    assert fleet.federation.kept_models() == set(digests[3:])


@pytest.mark.parametrize("lease_s", [10, 45])
def test_the_lease_is_the_active_runs(lease_s: float) -> None:
    """While a run is active its lease counts, else the controller's."""
    fleet = Fleet("a")
    assert fleet.federation.lease_s == 30
    fleet.train(schedule={"lease_s": lease_s})
    assert fleet.federation.lease_s == lease_s
    fleet.federation.stop("current", "enough", fleet.now)
    assert fleet.federation.lease_s == 30


def test_without_learners_and_runs_nothing_is_to_be_waited_for() -> None:
    """An empty federation has no deadline."""
    assert Fleet().federation.next_deadline() is None
