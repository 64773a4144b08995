"""Evaluation: the members score each new community model, the last always; when and how is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.errors import DifferentBody, InvalidConfig, InvalidRequest, TaskVoid
from services.federation import RunState
from tests.services.fleet import Fleet, outcome


def evaluated(fleet: Fleet, **config: Any) -> tuple[RunState, list[int]]:
    """A run played to its end, and the numbers of the rounds whose models were evaluated."""
    run = fleet.train(**config)
    while not run.over:
        fleet.play(accuracy=0.5)
    return run, [one.number for one in run.rounds if one.evaluation.combined]


def in_evaluation(*names: str, **config: Any) -> tuple[Fleet, RunState]:
    """A run whose first model has just been made."""
    fleet = Fleet(*names)
    run = fleet.train(**config)
    for name in names:
        fleet.do(name)
    fleet.aggregate()
    return fleet, run


def test_the_members_evaluate_the_new_model() -> None:
    """Not the one that they trained from: every member scores the model that the round has just made."""
    fleet, run = in_evaluation("a", "b")
    tasks = [fleet.task(name, "evaluate") for name in "ab"]
    assert {task.model for task in tasks} == {run.rounds[0].model}
    assert run.rounds[0].model != run.rounds[0].parent
    assert {task.round for task in tasks} == {1}


@pytest.mark.parametrize(
    ("every", "rounds", "expected"),
    [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (3, 3, [3]), (10, 4, [4]), (0, 3, [])],
)
def test_every_nth_model_is_evaluated_and_the_last_always(every: int, rounds: int, expected: list[int]) -> None:
    """`every` = n skips the rounds between, never the last one; 0 turns evaluation off."""
    signals = {"federation_rounds": rounds}
    run, numbers = evaluated(Fleet("a", "b"), evaluation={"every": every}, termination=signals)
    assert numbers == expected
    assert (run.state, run.aggregations) == ("completed", rounds)


def test_model_0_is_evaluated_when_asked_for() -> None:
    """`initial` has everyone score model 0 before round 1, and shows it in the results apart from the rounds."""
    fleet = Fleet("a", "b")
    run = fleet.start(evaluation={"initial": True})
    (asked,) = [name for name in "ab" if fleet.poll(name)]
    fleet.do(asked, "init")
    assert (run.state, run.round) == ("evaluating", 0)
    assert {fleet.task(name, "evaluate").model for name in "ab"} == {run.model}
    fleet.do("a", "evaluate", accuracy=0.25)
    fleet.do("b", "evaluate", accuracy=0.75)
    assert (run.state, run.round) == ("training", 1)
    results = fleet.federation.results(run, fleet.now)
    assert results.initial_evaluation is not None
    assert results.initial_evaluation.combined == {"accuracy": 0.5}
    assert results.rounds == []


def test_without_it_model_0_is_not_evaluated() -> None:
    """The first task after the initial weights is training."""
    fleet = Fleet("a")
    run = fleet.train()
    assert fleet.task("a").kind == "train"
    assert fleet.federation.results(run, fleet.now).initial_evaluation is None


def test_scores_are_combined_by_examples() -> None:
    """100 rows of accuracy 0.5 and 300 of 0.9 are 0.8; the count is no score."""
    fleet, run = in_evaluation("a", "b")
    fleet.do("a", "evaluate", accuracy=0.5, num_evaluation_examples=100)
    fleet.do("b", "evaluate", accuracy=0.9, num_evaluation_examples=300)
    told = run.rounds[0].message(str).evaluation_metrics
    assert told.combined == {"accuracy": pytest.approx(0.8)}
    assert told.learners == {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.9}}


def test_members_that_do_no_evaluation_are_not_asked() -> None:
    """A round whose members cannot evaluate closes without scores."""
    fleet = Fleet()
    fleet.join("a", kinds=["init", "train"])
    run = fleet.train()
    fleet.do("a")
    fleet.aggregate()
    assert (run.state, run.round) == ("training", 2)
    assert run.rounds[0].evaluation.combined == {}


def test_an_evaluation_goes_on_at_its_deadline() -> None:
    """A learner that never answers delays the next round by the deadline at the most; the text tells who and when."""
    fleet, run = in_evaluation("a", "b", schedule={"round_deadline_s": 100})
    fleet.do("a", "evaluate", accuracy=0.5)
    fleet.stay(60)
    assert fleet.waiting_for(run) == (
        "waiting for 1 more of 2 evaluations of model 1: b, last seen 0 s ago, goes on in 40 s"
    )
    fleet.stay(40)
    assert (run.state, run.round) == ("training", 2)
    assert run.rounds[0].evaluation.combined == {"accuracy": 0.5}


@pytest.mark.parametrize("how", ["fails", "is lost"])
def test_a_learner_that_cannot_evaluate_does_not_stall(how: str) -> None:
    """A failure, or a lapse of the lease, closes the evaluation with the scores that are there."""
    fleet, run = in_evaluation("a", "b")
    fleet.do("a", "evaluate", accuracy=0.5)
    if how == "fails":
        fleet.fail("b")
    else:
        fleet.stay(31, "a")
    assert (run.state, run.round) == ("training", 2)
    assert run.rounds[0].evaluation.combined == {"accuracy": 0.5}


def test_overlap_trains_the_next_round_while_the_model_is_evaluated() -> None:
    """Each learner evaluates and trains without waiting for the other's scores; the rounds close in order."""
    fleet, run = in_evaluation("a", "b", evaluation={"overlap": True})
    assert (run.state, run.round) == ("training", 2)
    fleet.do("a", "evaluate", accuracy=0.5)
    fleet.do("a")
    fleet.do("b", "evaluate", accuracy=1.0)
    assert run.rounds[0].state == "closed"
    assert run.rounds[0].evaluation.combined == {"accuracy": 0.75}
    fleet.do("b")
    fleet.aggregate()
    assert run.round == 3


def test_overlap_ends_after_the_last_models_evaluation() -> None:
    """No round is begun beyond the last, and its model is scored."""
    run, numbers = evaluated(Fleet("a", "b"), evaluation={"overlap": True})
    assert (numbers, run.state, run.round) == ([1, 2, 3], "completed", 3)
    assert run.reason == "3 rounds are done"


def test_overlap_ends_by_a_score_while_the_next_round_trains() -> None:
    """The score of round 1 ends the run although round 2 is in training; its tasks are void."""
    signals = {"evaluation_metric": "accuracy", "evaluation_metric_cutoff_score": 0.9}
    fleet, run = in_evaluation("a", "b", evaluation={"overlap": True}, termination=signals)
    fleet.do("a", "evaluate", accuracy=0.95)
    fleet.do("b", "evaluate", accuracy=0.95)
    assert (run.state, run.ended_by, run.round) == ("completed", "evaluation_metric", 2)
    assert fleet.poll("a") is None
    assert run.model == run.rounds[0].model


def test_the_best_model_is_the_one_of_the_best_score() -> None:
    """By the run's metric and mode; without one by accuracy, else by loss; an equal score does not replace it."""
    cases: list[tuple[Mapping[str, Any], list[Mapping[str, float | None]], int | None]] = [
        ({}, [{"accuracy": 0.5}, {"accuracy": 0.7}, {"accuracy": 0.7}], 2),
        ({}, [{"loss": 0.5}, {"loss": 0.7}, {"loss": 0.4}], 3),
        ({}, [{"accuracy": 0.9, "loss": 1.0}, {"accuracy": 0.8, "loss": 0.1}, {"accuracy": None}], 1),
        (
            {"evaluation_metric": "f1", "evaluation_metric_cutoff_score": 2, "federation_rounds": 3},
            [{"f1": 0.0}, {"f1": 0.2, "accuracy": 1.0}, {"accuracy": 1.0}],
            2,
        ),
        (
            {
                "evaluation_metric": "error",
                "evaluation_metric_mode": "min",
                "patience_rounds": 9,
                "federation_rounds": 3,
            },
            [{"error": 0.3}, {"error": 0.2}, {"error": 0.25}],
            2,
        ),
        ({}, [{"bleu": 3.0}, {}, {}], None),
    ]
    for signals, scores, best in cases:
        fleet = Fleet("a")
        run = fleet.train(termination=signals or {"federation_rounds": 3})
        for score in scores:
            fleet.play(**score)
        told = run.message(str, None)
        assert told.best_round == best
        assert told.best_model == (run.rounds[best - 1].model.digest if best else None)  # type: ignore[union-attr]


def test_scores_that_cannot_be_combined_are_no_error() -> None:
    """An impossible number of examples counts as not told; nothing of it reaches the state machine as an error."""
    fleet, run = in_evaluation("a")
    task = fleet.task("a", "evaluate")
    wild = outcome(task, metrics={"accuracy": 0.5})
    wild = type(wild)(wild.fingerprint, wild.size, wild.metrics, {"num_evaluation_examples": 10**400})
    fleet.federation.accept(task.id, wild, fleet.now)
    assert run.rounds[0].evaluation.combined == {"accuracy": 0.5}


# ---- who
def test_everybody_evaluates_when_that_is_asked() -> None:
    """Also who was no member of the round."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(selection={"participation_ratio": 0.3}, evaluation={"who": "everybody"})
    (member,) = [task.learner for task in run.rounds[0].train.values()]
    fleet.do(member)
    fleet.aggregate()
    assert sorted(task.learner for task in run.rounds[0].evaluate.values()) == ["a", "b", "c"]


def scored_by_driver(**config: Any) -> tuple[Fleet, RunState]:
    """A run whose first model is there; its driver evaluates."""
    return in_evaluation("a", evaluation={"who": "driver"}, **config)


def test_the_driver_evaluates_when_that_is_asked() -> None:
    """No learner is; the round waits for its scores, within its bound, and they count for the end."""
    signals = {"evaluation_metric": "accuracy", "evaluation_metric_cutoff_score": 0.9}
    fleet, run = scored_by_driver(termination=signals)
    assert (run.state, run.rounds[0].evaluate) == ("evaluating", {})
    assert (fleet.waiting_for(run) or "").startswith("waiting for the driver's scores of model 1; goes on in 3600 s")
    fleet.federation.take_scores(run.id, 1, {"accuracy": 0.5}, fleet.now)
    assert (run.state, run.round) == ("training", 2)
    fleet.do("a")
    fleet.aggregate()
    one = fleet.federation.take_scores(run.id, 2, {"accuracy": 0.95}, fleet.now)
    assert one.message(str).evaluation_metrics.combined == {"accuracy": 0.95}
    assert (run.state, run.ended_by) == ("completed", "evaluation_metric")
    assert run.best is not None
    assert run.best[:2] == (2, 0.95)


def test_scores_of_the_driver_may_be_sent_again_and_nothing_else() -> None:
    """The same ones change nothing; others, those of a round that is over or to come, and of learners' runs do."""
    fleet, run = scored_by_driver(termination={"federation_rounds": 9})
    scores: dict[str, float | None] = {"accuracy": 0.5}
    with pytest.raises(InvalidRequest, match="round 2 has no model yet"):
        fleet.federation.take_scores(run.id, 2, scores, fleet.now)
    for _ in range(2):
        fleet.federation.take_scores(run.id, 1, scores, fleet.now)
    with pytest.raises(DifferentBody):
        fleet.federation.take_scores(run.id, 1, {"accuracy": 0.6}, fleet.now)
    fleet.do("a")
    fleet.aggregate()
    fleet.stay(3600)  # the driver is gone: the round closes without
    with pytest.raises(TaskVoid, match="round 2 is over"):
        fleet.federation.take_scores(run.id, 2, scores, fleet.now)
    other, learners = in_evaluation("a")
    with pytest.raises(InvalidRequest, match="the learners of this run evaluate"):
        other.federation.take_scores(learners.id, 1, scores, other.now)


def test_model_0_is_scored_by_learners_alone() -> None:
    """With a driver that evaluates it is refused, when the run is posted."""
    with pytest.raises(InvalidConfig, match="leave one of them out"):
        Fleet("a").start(evaluation={"who": "driver", "initial": True})
