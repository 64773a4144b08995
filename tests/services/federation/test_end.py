"""The end of a run: every signal, enforced without a driver, each with its reason; stop and cutoff wait for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from services.federation import RunState
from tests.services.fleet import Fleet


def played(scores: list[float | None], **signals: Any) -> RunState:
    """A run of one learner whose models get these scores, until it has ended or no score is left."""
    fleet = Fleet("a")
    run = fleet.train(termination=signals)
    for score in scores:
        if not run.over:
            fleet.play(score=score)
    return run


def test_n_rounds_are_n_aggregations_and_the_last_evaluation_is_waited_for() -> None:
    """Of three rounds the third is aggregated and evaluated before the run is completed."""
    fleet = Fleet("a")
    run = fleet.train()
    for _ in range(2):
        fleet.play()
    fleet.do("a")
    fleet.aggregate()
    assert (run.state, run.aggregations) == ("evaluating", 3)
    fleet.do("a", "evaluate")
    assert (run.state, run.ended_by, run.reason) == ("completed", "federation_rounds", "3 rounds are done")
    assert (run.round, run.aggregations) == (3, 3)
    assert fleet.poll("a") is None


@pytest.mark.parametrize(
    ("mode", "cutoff", "scores", "ends_after"),
    [
        ("max", 0.9, [0.5, 0.89, 0.9], 3),
        ("min", 0.1, [0.5, 0.09], 2),
        ("max", 0.0, [-0.5, 0.0], 2),
        ("min", 0.0, [0.5, None, 0.0], 3),
        ("max", 0.9, [None, 0.5, None], None),
    ],
)
def test_a_score_ends_the_run(mode: str, cutoff: float, scores: list[float | None], ends_after: int | None) -> None:
    """At least (`max`) or at most (`min`) the cutoff; 0 is a score; a missing one never matches."""
    run = played(scores, evaluation_metric="score", evaluation_metric_mode=mode, evaluation_metric_cutoff_score=cutoff)
    assert run.over == (ends_after is not None)
    if ends_after:
        assert (run.state, run.ended_by, run.aggregations) == ("completed", "evaluation_metric", ends_after)


def test_patience_ends_the_run() -> None:
    """Two rounds without a better score, and the best of them is the best model."""
    run = played([0.5, 0.6, 0.6, 0.55, 0.9], evaluation_metric="score", patience_rounds=2)
    assert (run.ended_by, run.reason) == ("patience_rounds", "score has not improved for 2 rounds")
    assert (run.aggregations, run.message(str, None).best_round) == (4, 2)


def test_patience_counts_rounds_when_not_every_round_is_evaluated() -> None:
    """Scored in rounds 2, 4 and 6, three rounds without improvement are over at the last of these."""
    fleet = Fleet("a")
    signals = {"evaluation_metric": "score", "patience_rounds": 3}
    run = fleet.train(termination=signals, evaluation={"every": 2})
    while not run.over:
        fleet.play(score=0.5)
    assert (run.aggregations, run.ended_by) == (6, "patience_rounds")


def test_a_metric_that_nobody_reports_does_not_keep_a_patient_run_alive() -> None:
    """A typing mistake in the metric's name fails the run after its patience, and names the nearest."""
    run = played([0.1, 0.2, 0.3, 0.4, 0.5], evaluation_metric="scores", patience_rounds=2)
    assert (run.state, run.ended_by, run.aggregations) == ("failed", "failure", 2)
    assert run.reason == "no learner reports 'scores'; did you mean score?"


def test_a_metric_that_nobody_reports_ends_a_run_after_three_evaluations() -> None:
    """Without patience, too: it would never end."""
    run = played([0.1, 0.2, 0.3, 0.4, 0.5], evaluation_metric="acuracy", evaluation_metric_cutoff_score=0.9)
    assert (run.state, run.aggregations) == ("failed", 3)


def test_a_metric_that_nobody_reports_is_told_after_the_first_evaluation() -> None:
    """With the nearest name, once."""
    fleet = Fleet("a")
    fleet.train(termination={"evaluation_metric": "acuracy", "evaluation_metric_cutoff_score": 0.9})
    for _ in range(2):
        fleet.do("a")
        fleet.aggregate()
        fleet.do("a", "evaluate", accuracy=0.5)
    told = [event.text for event in fleet.events() if event.kind == "metric-unreported"]
    assert told == ["no learner reports 'acuracy'; did you mean accuracy?"]


def test_a_last_model_that_nobody_evaluated_is_told() -> None:
    """Who could not, and why, is in the last words."""
    fleet = Fleet("a")
    run = fleet.train(termination={"federation_rounds": 1})
    fleet.do("a")
    fleet.aggregate()
    fleet.fail("a", "ValueError: no test rows")
    assert run.reason == "1 rounds are done; nobody evaluated the last model (a: ValueError: no test rows)"


@pytest.mark.parametrize("phase", ["waiting", "initializing", "training", "aggregating", "evaluating"])
def test_the_time_is_over_in_every_phase(phase: str) -> None:
    """The cutoff ends the run at its minute whatever it is doing, as completed, and its tasks are void."""
    fleet = Fleet("a")
    run = fleet.start(
        min_learners=2, schedule={"join_deadline_s": 1e6, "lease_s": 1e6}, termination={"execution_cutoff_time_mins": 5}
    )
    if phase != "waiting":
        fleet.join("b")
    if phase not in ("waiting", "initializing"):
        (asked,) = [name for name in "ab" if fleet.poll(name)]
        fleet.do(asked, "init")
    if phase in ("aggregating", "evaluating"):
        fleet.do("a")
        fleet.do("b")
    if phase == "evaluating":
        fleet.aggregate()
    assert run.state == phase
    fleet.wait(299.99)
    assert run.state == phase
    fleet.wait(0.02)
    assert (run.state, run.ended_by) == ("completed", "execution_cutoff_time_mins")
    assert run.reason == "5 minutes are over"
    assert all(fleet.poll(name) is None for name in fleet.ids)


def test_a_cutoff_may_be_longer_than_a_day() -> None:
    """30 hours are not 6."""
    fleet = Fleet("a")
    run = fleet.start(
        min_learners=2, schedule={"join_deadline_s": 1e7}, termination={"execution_cutoff_time_mins": 1800}
    )
    fleet.wait(29.9 * 3600)
    assert not run.over
    fleet.wait(0.2 * 3600)
    assert run.over


def test_whichever_signal_comes_first_ends_the_run() -> None:
    """Rounds, score and time are watched at once."""
    both = {"evaluation_metric": "score", "evaluation_metric_cutoff_score": 0.9}
    assert played([0.95], federation_rounds=5, **both).ended_by == "evaluation_metric"
    assert played([0.5, 0.5], federation_rounds=2, **both).ended_by == "federation_rounds"


def test_a_stop_ends_a_run_now_and_keeps_what_it_made() -> None:
    """The reason is the operator's, the newest model stays, the open round is shown as closed; another stop is none."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.play()
    fleet.do("a")
    fleet.federation.stop("current", "lunch", fleet.now)
    fleet.events()
    again = fleet.federation.stop(run.id, "dinner", fleet.now + 5)
    assert again is run
    assert fleet.events() == []
    assert (run.state, run.reason, run.ended_by, run.ended_at) == ("stopped", "lunch", "stop", fleet.now)
    results = fleet.federation.results(run, fleet.now)
    assert [(one.round, one.state) for one in results.rounds] == [(1, "closed"), (2, "closed")]
    assert results.rounds[1].closed_by == "the run ended: lunch"
    assert results.model == results.rounds[0].model
    assert (results.global_iteration, results.ended_by) == (1, "stop")


def test_results_hold_everything_at_the_end_and_the_closed_rounds_before() -> None:
    """Rounds, tasks with their factors, every learner that took part, also one that left."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.play()
    before = fleet.federation.results(run, fleet.now)
    assert [one.round for one in before.rounds] == [1]
    fleet.leave("b")
    del fleet.ids["b"]
    fleet.play()
    fleet.play()
    fleet.leave("a")
    results = fleet.federation.results(run, fleet.now)
    assert [one.round for one in results.rounds] == [1, 2, 3]
    assert results.rounds[1].failed == {"b": "b left"}
    assert {learner.name: learner.state for learner in results.learners} == {"a": "active", "b": "left"}
    kinds = [(task.kind, task.round) for task in results.tasks if task.learner == "a" and task.kind != "init"]
    assert kinds == [(kind, number) for number in (1, 2, 3) for kind in ("train", "evaluate")]
    assert {task.factor for task in results.tasks if task.kind == "train" and task.state == "accepted"} == {1.0}
    assert results.run.ended_at is not None
    assert results.run.waiting_for is None
