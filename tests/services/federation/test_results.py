"""Results of tasks: a duplicate gets the same receipt in every phase and counts once; late ones change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services import messages as m
from services.errors import DifferentBody, FederationError, Forbidden, RoundClosed, TaskVoid, UnknownTask
from tests.services.fleet import Fleet, dump, outcome
from tests.services.phases import PHASES, Phase, in_round_1, over, stopped

every_phase = pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)


@every_phase
@pytest.mark.parametrize("kind", ["init", "train"])
def test_a_duplicate_gets_the_same_receipt_in_every_phase(phase: Phase, kind: str) -> None:
    """A retried upload of an accepted result is answered with its receipt, moves nothing and counts once."""
    fleet, run = in_round_1()
    task = run.initial[0] if kind == "init" else fleet.do("a")
    if kind == "init":
        fleet.do("a")
    first = task.receipt
    phase(fleet, run)
    before = dump(fleet.federation, without=["last_seen"])
    for _ in range(3):
        assert fleet.give(task) == (first, False)
    assert dump(fleet.federation, without=["last_seen"]) == before


@every_phase
def test_another_body_for_an_accepted_task_is_refused_in_every_phase(phase: Phase) -> None:
    """The first body stays; the second is told that it differs and changes nothing."""
    fleet, run = in_round_1()
    task = fleet.do("a")
    phase(fleet, run)
    before = dump(fleet.federation)
    with pytest.raises(DifferentBody, match=task.id):
        fleet.give(task, "something else")
    assert dump(fleet.federation) == before


def test_a_duplicate_of_the_last_update_does_not_close_the_round_twice() -> None:
    """The upload that closed the round is retried before, while and after it is aggregated: one model comes of it."""
    fleet, run = in_round_1()
    fleet.do("a")
    fleet.do("b")
    last = fleet.do("c")
    fleet.give(last)
    job = fleet.federation.due()
    assert job is not None
    fleet.give(last)
    assert fleet.federation.due() is None
    fleet.aggregated(job)
    fleet.give(last)
    assert fleet.federation.due() is None
    assert (run.round, run.aggregations) == (1, 1)
    assert fleet.kinds().count("round-aggregated") == 1


def test_a_duplicate_of_an_evaluation_is_answered_too() -> None:
    """Scores are counted once, during the evaluation and after the round closed; other scores are refused."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.do("a")
    fleet.do("b")
    fleet.aggregate()
    task = fleet.do("a", "evaluate", accuracy=0.5)
    assert fleet.give(task, accuracy=0.5) == (task.receipt, False)
    fleet.do("b", "evaluate", accuracy=1.0)
    assert fleet.give(task, accuracy=0.5) == (task.receipt, False)
    with pytest.raises(DifferentBody):
        fleet.give(task, "other scores", accuracy=0.9)
    assert run.rounds[0].evaluation.combined == {"accuracy": 0.75}


def test_a_receipt_says_what_was_taken() -> None:
    """Task, kind, run, round, learner and size are those of the accepted result."""
    fleet, run = in_round_1()
    receipt, taken = fleet.give(fleet.task("a"), "twelve bytes")
    assert taken
    assert receipt == m.Receipt(
        task_id=receipt.task_id, kind="train", run_id=run.id, round=1, learner="a", size=len("twelve bytes")
    )


def test_an_update_for_a_closed_round_is_told_the_current_one() -> None:
    """A straggler's update is refused with RoundClosed, which names its round and the run's; nothing changes."""
    fleet, run = in_round_1()
    late = fleet.task("c")
    fleet.do("a")
    fleet.do("b")
    fleet.stay(3600, "a", "b", "c")
    fleet.play()
    assert (run.state, run.round) == ("training", 2)
    before = dump(fleet.federation)
    with pytest.raises(RoundClosed, match="round 1 closed without this result; the run is at round 2") as caught:
        fleet.give(late)
    assert caught.value.values == {"round": 1, "current_round": 2}
    assert dump(fleet.federation) == before


def test_scores_for_a_closed_evaluation_are_refused() -> None:
    """Scores that come after the evaluation closed do not change what was combined."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.do("a")
    fleet.do("b")
    fleet.aggregate()
    late = fleet.task("b", "evaluate")
    fleet.do("a", "evaluate", accuracy=0.5)
    fleet.stay(3600)
    with pytest.raises(RoundClosed):
        fleet.give(late, accuracy=1.0)
    assert run.rounds[0].evaluation.combined == {"accuracy": 0.5}


@pytest.mark.parametrize("end", [stopped, over])
def test_a_task_of_an_ended_run_is_void(end: Phase) -> None:
    """What was open when the run ended is refused with the reason; nothing changes."""
    fleet, run = in_round_1()
    late = fleet.task("a")
    end(fleet, run)
    before = dump(fleet.federation)
    with pytest.raises(TaskVoid, match=f"{late.id} is no longer wanted: the run ended"):
        fleet.give(late)
    assert dump(fleet.federation) == before


def test_a_task_of_a_learner_that_left_is_void() -> None:
    """Its late update is refused, saying that it left."""
    fleet, _ = in_round_1()
    late = fleet.task("c")
    fleet.leave("c")
    with pytest.raises(TaskVoid, match="c left"):
        fleet.give(late)


def test_a_failed_task_takes_no_result_and_a_done_task_does_not_fail() -> None:
    """What is told first counts: a failure after a result, or a second failure, changes nothing."""
    fleet, _ = in_round_1()
    failed_task, done = fleet.fail("a", "first\nsecond"), fleet.do("b")
    with pytest.raises(TaskVoid, match=r"no longer wanted: first$"):
        fleet.give(failed_task)
    before = dump(fleet.federation)
    fleet.federation.fail(failed_task.id, fleet.ids["a"], "again", fleet.now)
    fleet.federation.fail(done.id, fleet.ids["b"], "too late", fleet.now)
    assert dump(fleet.federation) == before


def test_a_failure_of_a_void_task_is_told_so() -> None:
    """A learner that reports a failure late learns, like one that reports a result, that nobody wants it."""
    fleet, run = in_round_1()
    task = fleet.task("a")
    stopped(fleet, run)
    with pytest.raises(TaskVoid):
        fleet.federation.fail(task.id, fleet.ids["a"], "out of memory", fleet.now)


def test_a_task_belongs_to_its_learner() -> None:
    """Another learner may neither do nor fail it; a task that there is not is unknown; nothing changes."""
    fleet, _ = in_round_1()
    task = fleet.task("a")
    before = dump(fleet.federation)
    refusals: list[tuple[type[FederationError], Callable[[], object]]] = [
        (Forbidden, lambda: fleet.federation.check(task.id, fleet.ids["b"])),
        (Forbidden, lambda: fleet.federation.fail(task.id, fleet.ids["b"], "x", fleet.now)),
        (UnknownTask, lambda: fleet.federation.check("id-999", fleet.ids["b"])),
        (UnknownTask, lambda: fleet.federation.fail("id-999", fleet.ids["b"], "x", fleet.now)),
        (UnknownTask, lambda: fleet.federation.accept("id-999", outcome(task), fleet.now)),
    ]
    for kind, call in refusals:
        with pytest.raises(kind):
            call()
    assert dump(fleet.federation) == before
    assert fleet.federation.check(task.id, fleet.ids["a"]) is fleet.federation.check(task.id, None) is task
