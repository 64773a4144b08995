"""Asynchronous runs: whoever reports goes on at once, models follow each other, and nothing waits without a bound."""

from __future__ import annotations

from typing import Any

import pytest

from services.errors import InvalidConfig, RoundClosed, TaskVoid
from services.federation import Aggregation, RunState
from tests.services.fleet import Fleet

STREAM: dict[str, Any] = {"scheduler": "Asynchronous", "evaluation": {"every": 0}}


def started(*names: str, rule: str = "FedRec", **config: Any) -> tuple[Fleet, RunState]:
    """A fleet whose asynchronous run has model 0."""
    fleet = Fleet(*names)
    run = fleet.train(**{**STREAM, "aggregation_rule": rule, **config})
    return fleet, run


def commit(fleet: Fleet, name: str) -> Aggregation:
    """The learner reports, and the community model is made of it."""
    fleet.do(name)
    return fleet.aggregate()


def learners(job: Aggregation) -> list[str]:
    """Whose updates an aggregation takes."""
    return [share.learner for share in job.shares]


def test_each_report_makes_a_model_and_its_learner_goes_on_with_that() -> None:
    """The others train on; rounds are community models."""
    fleet, run = started("a", "b")
    first, slow = fleet.task("a"), fleet.task("b")
    assert (first.round, slow.round, run.state) == (1, 1, "training")
    job = commit(fleet, "a")
    assert (learners(job), job.shares[0].staleness, job.shares[0].trained_from) == (["a"], 0, first.model)
    again = fleet.task("a")
    assert (again.round, again.model) == (2, run.model)
    assert fleet.task("b") is slow
    job = commit(fleet, "b")
    assert (learners(job), job.shares[0].staleness, job.shares[0].trained_from) == (["b"], 1, first.model)
    assert [one.number for one in fleet.closed(run)] == [1, 2]


def test_while_a_model_is_made_others_may_report() -> None:
    """Their updates wait for their turn; a learner whose update is being taken has no task meanwhile."""
    fleet, run = started("a", "b", "c")
    fleet.do("a")
    job = fleet.federation.due()
    assert job is not None
    fleet.do("b")
    fleet.do("c")
    assert fleet.federation.due() is None
    assert [fleet.poll(name) for name in "abc"] == [None, None, None]
    fleet.aggregated(job)
    assert fleet.task("a").round == 2
    assert [learners(fleet.aggregate()), learners(fleet.aggregate())] == [["b"], ["c"]]
    assert (run.state, run.ended_by, run.aggregations) == ("completed", "federation_rounds", 3)


def test_the_last_model_ends_the_run_and_its_tasks() -> None:
    """N rounds are N community models; what still trains is void."""
    fleet, run = started("a", "b", termination={"federation_rounds": 2})
    slow = fleet.task("b")
    commit(fleet, "a")
    commit(fleet, "a")
    assert (run.state, run.aggregations, slow.state) == ("completed", 2, "void")
    with pytest.raises(TaskVoid):
        fleet.give(slow)


def test_everybody_evaluates_the_last_model_and_the_committer_the_others() -> None:
    """Evaluation does not keep anybody from training."""
    fleet, run = started("a", "b", evaluation={"every": 1}, termination={"federation_rounds": 2})
    commit(fleet, "a")
    assert fleet.task("a", "evaluate").model == run.model
    assert fleet.task("b").kind == "train"
    fleet.do("a", "evaluate", accuracy=0.5)
    commit(fleet, "b")
    assert run.state == "evaluating"
    fleet.do("a", "evaluate", accuracy=0.7)
    assert run.state == "evaluating"
    fleet.do("b", "evaluate", accuracy=0.8)
    assert (run.state, [score for _, score in run.scores]) == ("completed", [0.5, 0.75])


def test_a_score_may_end_the_run() -> None:
    """Signals are those of any run."""
    signals = {"evaluation_metric": "accuracy", "evaluation_metric_cutoff_score": 0.9}
    fleet, run = started("a", "b", evaluation={"every": 1}, termination=signals)
    commit(fleet, "a")
    fleet.do("a", "evaluate", accuracy=0.95)
    assert (run.state, run.ended_by) == ("completed", "evaluation_metric")


def test_fedavg_takes_everybodys_newest() -> None:
    """Also of those that train: but not of learners that left."""
    fleet, _ = started("a", "b", "c", rule="FedAvg", termination={"federation_rounds": 9})
    assert learners(commit(fleet, "b")) == ["b"]
    assert learners(commit(fleet, "a")) == ["a", "b"]
    newest = commit(fleet, "b")
    assert learners(newest) == ["a", "b"]
    assert newest.shares[1].blob != fleet.jobs[0].shares[0].blob
    fleet.leave("a")
    assert learners(commit(fleet, "c")) == ["b", "c"]


def test_fedrec_is_given_the_learners_last_update_and_begins_anew_when_one_left() -> None:
    """So that the sum is that of the newest updates of all who are here."""
    fleet, run = started("a", "b", termination={"federation_rounds": 9})
    first = commit(fleet, "a")
    assert first.shares[0].previous is None
    run.aggregator_state = {"weight": 1.0}
    second = commit(fleet, "a")
    assert second.shares[0].previous is not None
    assert second.shares[0].previous.blob == first.shares[0].blob
    run.aggregator_state = {"weight": 1.0}
    commit(fleet, "b")
    fleet.leave("a")
    run.aggregator_state = {"weight": 1.0}
    anew = commit(fleet, "b")
    assert (learners(anew), anew.shares[0].previous, anew.aggregator_state) == (["b"], None, None)


def test_a_buffer_fills_from_whomever_and_nobody_waits_for_it() -> None:
    """A learner may be in it more than once."""
    fleet, run = started("a", "b", rule="FedBuff", aggregation={"buffer_size": 3})
    fleet.do("b")
    fleet.do("b")
    assert (fleet.federation.due(), fleet.task("b").round, run.round) == (None, 1, 0)
    job = commit(fleet, "a")
    assert (learners(job), len({share.blob for share in job.shares})) == (["a", "b", "b"], 3)
    assert (fleet.task("a").round, fleet.task("b").round) == (2, 1)


def test_who_made_several_of_a_models_updates_scores_it_once() -> None:
    """One task to evaluate it."""
    fleet, run = started("a", "b", rule="FedBuff", aggregation={"buffer_size": 2}, evaluation={"every": 1})
    fleet.do("b")
    commit(fleet, "b")
    offered = [event.learner for event in fleet.events() if event.text.endswith("is to evaluate")]
    assert (offered, len(run.rounds[0].evaluate)) == (["b"], 1)


def test_what_is_too_stale_is_stopped_and_refused() -> None:
    """The learner is given the newest model instead."""
    fleet, _ = started("a", "b", schedule={"max_staleness": 1}, termination={"federation_rounds": 9})
    slow = fleet.task("b")
    commit(fleet, "a")
    assert fleet.task("b") is slow
    commit(fleet, "a")
    with pytest.raises(RoundClosed, match="2 community models old, at most 1 are allowed"):
        fleet.give(slow)
    assert fleet.task("b").round == 3


def test_who_fails_rests_until_the_next_model() -> None:
    """And when nobody is left, the run says why it fails."""
    fleet, run = started("a", "b")
    fleet.fail("a", "out of memory")
    assert fleet.poll("a") is None
    commit(fleet, "b")
    assert fleet.task("a").round == 2
    fleet.fail("a", "out of memory")
    fleet.fail("b", "no data")
    assert (run.state, run.reason) == (
        "failed",
        "nobody is left to train (a: out of memory; a: out of memory; b: no data)",
    )


def test_a_task_that_is_late_is_given_up_and_a_run_without_models_ends() -> None:
    """No wait without a bound."""
    fleet, run = started("a", "b", schedule={"round_deadline_s": 60, "lease_s": 1000})
    slow = fleet.task("b")
    fleet.stay(40)
    commit(fleet, "a")
    fleet.stay(30)
    with pytest.raises(RoundClosed, match="not done within 60 s"):
        fleet.give(slow)
    assert fleet.task("b").model == run.model
    fleet.stay(60)
    assert (run.state, run.ended_by) == ("failed", "failure")
    assert "no community model came about within 60 s" in (run.reason or "")


def test_learners_may_come_be_lost_return_and_leave() -> None:
    """A joiner gets a task at once; a lost one keeps its task; a leaver's update that has arrived counts."""
    fleet, run = started("a", "b", schedule={"lease_s": 30}, termination={"federation_rounds": 9})
    fleet.join("c")
    assert fleet.task("c").model == run.model
    lost = fleet.task("b")
    fleet.stay(60, "a", "c")
    assert fleet.federation.roster.get(fleet.ids["b"]).state == "lost"
    fleet.do("c")
    fleet.leave("c")
    assert fleet.federation.awaits_update_of(fleet.ids["c"])
    assert learners(fleet.aggregate()) == ["c"]
    assert not fleet.federation.awaits_update_of(fleet.ids["c"])
    assert fleet.task("b") is lost
    assert learners(commit(fleet, "b")) == ["b"]
    assert fleet.federation.released[0][0] == fleet.ids["c"]


def test_what_has_arrived_when_a_run_is_stopped_is_let_go() -> None:
    """The store may forget what no community model will be made of."""
    fleet, run = started("a", "b", rule="FedBuff")
    task = fleet.do("a")
    assert fleet.federation.postpones(task)
    fleet.federation.stop(run.id, "enough", fleet.now)
    assert task.outcome is not None
    assert fleet.federation.released == [(fleet.ids["a"], task.outcome.blob)]


def test_models_are_kept_while_somebody_trains_from_them() -> None:
    """FedBuff and staleness need the model that an update was trained from."""
    fleet, run = started("a", "b", termination={"federation_rounds": 9})
    old = fleet.task("b").model
    assert old is not None
    for _ in range(4):
        commit(fleet, "a")
    assert old.digest in run.kept_models()
    commit(fleet, "b")
    assert old.digest not in run.kept_models()


def test_it_says_what_it_waits_for() -> None:
    """Who trains and was heard of when, how many updates are wanted, and when it gives up; then what is made of them;
    at the end whose scores are missing."""
    config: dict[str, Any] = {"evaluation": {"every": 1}, "termination": {"federation_rounds": 1}}
    schedule = {"round_deadline_s": 60, "lease_s": 120}
    fleet, run = started("a", "b", rule="FedBuff", aggregation={"buffer_size": 3}, schedule=schedule, **config)
    fleet.do("a")
    fleet.stay(20, "a")
    told = "waiting for 2 more of 3 updates: a, last seen 0 s ago; b, last seen 20 s ago;"
    assert fleet.waiting_for(run) == f"{told} the run fails in 40 s if no model comes about"
    fleet.do("a")
    fleet.do("b")
    assert fleet.waiting_for(run) == "aggregating 3 updates into model 1"
    fleet.aggregate()
    fleet.do("a", "evaluate")
    assert fleet.waiting_for(run) == (
        "waiting for 1 more of 2 evaluations of model 1: b, last seen 0 s ago, goes on in 60 s"
    )


def test_it_says_that_nobody_trains() -> None:
    """Everybody left: it waits for whoever comes, until it gives up."""
    fleet, run = started("a", schedule={"round_deadline_s": 60})
    fleet.leave("a")
    assert fleet.waiting_for(run) == (
        "waiting for 1 more of 1 updates: nobody, the run fails in 60 s if no model comes about"
    )


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"scheduler": "Asynchronous", "aggregation_rule": "Median"},
            "under Asynchronous run FedAvg, FedRec, FedAsync",
        ),
        ({"aggregation_rule": "FedRec"}, "takes updates one by one as they come"),
        ({"scheduler": "SemiSynchronous"}, "schedule.semi_sync_lambda: SemiSynchronous needs it"),
        ({**STREAM, "advance": "manual"}, "advance: an Asynchronous run has no rounds"),
        ({**STREAM, "selection": {"participation_ratio": 0.5}}, "selection.participation_ratio: an Asynchronous run"),
        ({**STREAM, "evaluation": {"overlap": True}}, "evaluation.overlap"),
    ],
)
def test_what_makes_no_sense_is_refused_and_what_would_is_named(config: dict[str, Any], told: str) -> None:
    """When the run is posted."""
    with pytest.raises(InvalidConfig, match=told):
        Fleet("a").start(config)


def test_fedrec_needs_the_update_before_the_newest() -> None:
    """A store that keeps one update of a learner would have erased it."""
    fleet = Fleet("a")
    fleet.federation.lineage_length = 1
    with pytest.raises(InvalidConfig, match="METIS_LINEAGE_LENGTH=2"):
        fleet.start({**STREAM, "aggregation_rule": "FedRec"})
