"""A round: who is drawn, when it closes, what is aggregated, and what is told of it."""

from __future__ import annotations

import pytest

from services import messages as m
from services.errors import RoundClosed
from services.federation import ModelInfo, RunState
from services.federation.health import health_of
from tests.services.fleet import Fleet, model

TEN = [f"learner-{i}" for i in range(10)]


def members(run: RunState, number: int = -1) -> list[str]:
    """Names of the members of a round, in the order of the round."""
    return [task.learner for task in run.rounds[number].train.values()]


def test_a_round_closes_when_every_member_has_reported() -> None:
    """Not before the last update; then the aggregation is due, once, and the next round trains its model."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train()
    for name in "ab":
        fleet.do(name)
        assert (run.state, fleet.federation.due()) == ("training", None)
    fleet.do("c")
    assert (run.state, run.rounds[0].closed_by) == ("aggregating", "3 of 3 members reported")
    job = fleet.aggregate()
    assert fleet.federation.due() is None
    fleet.play()
    assert fleet.task("a").model == run.rounds[0].model == run.model
    assert run.rounds[1].parent == run.rounds[0].model
    assert (job.round, job.parent) == (1, run.rounds[0].parent)


@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_the_aggregation_goes_in_the_order_of_names(order: str) -> None:
    """Whoever reports first, and whoever joined first, the shares are sorted by name."""
    fleet = Fleet("c", "a", "b")
    fleet.train()
    for name in order:
        fleet.do(name)
    job = fleet.aggregate()
    assert [share.learner for share in job.shares] == ["a", "b", "c"]
    assert len({share.blob for share in job.shares}) == 3
    assert {share.factor for share in job.shares} == {1.0}


def test_an_aggregation_is_a_frozen_snapshot() -> None:
    """What happens after it was handed out does not change it: a learner that leaves still counts."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.do("a")
    fleet.do("b")
    job = fleet.federation.due()
    assert job is not None
    fleet.leave("b")
    assert [share.learner for share in job.shares] == ["a", "b"]
    assert fleet.federation.awaits_update_of(fleet.ids["b"])
    fleet.aggregated(job)
    assert not fleet.federation.awaits_update_of(fleet.ids["b"])
    assert run.aggregations == 1


# ---- deadline and quorum
def test_at_the_deadline_the_quorum_makes_a_round() -> None:
    """With two of three updates and a quorum of two the round closes at its deadline; the third is too late."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(schedule={"round_deadline_s": 100, "min_updates": 2})
    late = fleet.task("c")
    fleet.do("a")
    fleet.do("b")
    fleet.stay(99.5)
    assert run.state == "training"
    fleet.stay(0.5)
    assert (run.state, run.rounds[0].closed_by) == ("aggregating", "deadline, with 2 updates")
    assert fleet.aggregate().shares[-1].learner == "b"
    with pytest.raises(RoundClosed):
        fleet.give(late)
    assert run.rounds[0].message(str).failed == {"c": "the round closed: deadline, with 2 updates"}


def test_below_the_quorum_the_round_fails_with_a_reason() -> None:
    """One update of a quorum of two at the deadline makes no model; three such rounds in a row end the run as failed,
    saying what was missing."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(schedule={"round_deadline_s": 100, "min_updates": 2})
    for number in (1, 2, 3):
        assert (run.state, run.round) == ("training", number)
        fleet.do("a")
        fleet.stay(100)
    assert (run.state, run.ended_by) == ("failed", "failure")
    assert run.reason == (
        "3 rounds in a row made no model (schedule.max_failed_rounds), the last one round 3: deadline: 1 updates,"
        " at least 2 needed"
    )
    assert fleet.federation.active is None


def test_a_round_that_failed_is_drawn_again() -> None:
    """Of three learners one is drawn, and one always fails: the next round draws another, and the run goes on."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train(selection={"participation_ratio": 0.3}, termination={"federation_rounds": 30})
    drawn = [""]
    for _ in range(30):
        (name,) = members(run)
        assert (name, drawn[-1]) != ("b", "b")
        drawn.append(name)
        if name == "b":
            fleet.fail("b", "ValueError: no rows")
        else:
            fleet.do(name)
            fleet.aggregate()
            fleet.do(name, "evaluate")
        assert run.state == "training"
    assert drawn.count("b") > 3
    assert health_of(fleet.federation.roster.get(fleet.ids["b"])) == "failing"


def test_who_has_not_fetched_its_task_is_not_drawn_again() -> None:
    """It hangs in the task of a round before; once it asks again it is a member again, and never is the quorum missed
    for it."""
    fleet = Fleet("a", "b")
    many = {"federation_rounds": 9}
    run = fleet.train(schedule={"round_deadline_s": 100, "lease_s": 1000}, evaluation={"every": 0}, termination=many)
    for name in "ab":
        fleet.poll(name)
    fleet.do("a")
    fleet.stay(100)
    fleet.aggregate()
    assert members(run) == ["a", "b"]  # it had fetched its task, and may be slow
    fleet.do("a")
    fleet.stay(100)
    fleet.aggregate()
    assert members(run) == ["a"]
    assert health_of(fleet.federation.roster.get(fleet.ids["b"])) == "failing"
    fleet.poll("b")
    fleet.do("a")
    fleet.aggregate()
    assert members(run) == ["a", "b"]


def test_failures_below_the_quorum_fail_the_round_at_once_with_their_reasons() -> None:
    """When nobody is left who could report, nothing is waited for; log and reason hold the line of an error that says
    what it was."""
    fleet = Fleet("a", "b")
    run = fleet.train(schedule={"min_updates": 2, "max_failed_rounds": 1})
    fleet.do("a")
    fleet.events()
    fleet.fail("b", "Traceback\nMemoryError: 8 GB")
    assert run.reason == "round 1: nobody left: 1 updates, at least 2 needed (b: MemoryError: 8 GB)"
    assert "b could not train: MemoryError: 8 GB" in [event.text for event in fleet.events()]


def test_a_failure_above_the_quorum_does_not_stall_the_round() -> None:
    """The others' updates make the model; the one that failed is a member of the next round again."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train()
    fleet.fail("b")
    fleet.do("a")
    assert run.state == "training"
    fleet.do("c")
    assert run.rounds[0].closed_by == "2 members reported, 1 failed"
    fleet.play()
    assert members(run) == ["a", "b", "c"]


def test_when_the_aggregation_fails_the_run_fails_saying_why() -> None:
    """The reason names the round; a result that arrives for a run that has ended is ignored."""
    fleet = Fleet("a")
    run = fleet.train()
    fleet.do("a")
    job = fleet.federation.due()
    assert job is not None
    fleet.federation.aggregation_failed(job, "the aggregate is not finite", fleet.now)
    assert (run.state, run.reason) == ("failed", "round 1: the aggregate is not finite")
    fleet.federation.aggregated(job, ModelInfo("sha256-x", 1), (None, None), 0.1, fleet.now)
    fleet.federation.aggregation_failed(job, "again", fleet.now)
    assert (run.aggregations, run.reason) == (0, "round 1: the aggregate is not finite")


# ---- who takes part
def test_participation_ratio_draws_a_share_each_round() -> None:
    """Of ten learners 0.3 are three, others in other rounds, and the rest is asked nothing."""
    fleet = Fleet(*TEN)
    run = fleet.train(selection={"participation_ratio": 0.3}, termination={"federation_rounds": 8})
    idle = [name for name in TEN if fleet.poll(name) is None]
    assert len(members(run)) == 3
    assert sorted(idle + members(run)) == TEN
    while not run.over:
        fleet.play()
    drawn = [tuple(members(run, number)) for number in range(8)]
    assert {len(names) for names in drawn} == {3}
    assert len(set(drawn)) > 4


def test_a_draw_depends_on_seed_round_and_names_only() -> None:
    """Another controller with the same learners, joined in another order, draws the same members."""
    config = {"selection": {"participation_ratio": 0.4}, "seed": 7}
    first, second = Fleet(*TEN), Fleet(*reversed(TEN))
    runs = [fleet.train(**config) for fleet in (first, second)]
    for fleet in (first, second):
        fleet.play()
    for number in (0, 1):
        assert members(runs[0], number) == members(runs[1], number)


def test_a_round_is_never_drawn_below_the_quorum() -> None:
    """A quorum of four draws four although a tenth would be one."""
    fleet = Fleet(*TEN)
    assert len(members(fleet.train(selection={"participation_ratio": 0.1}, schedule={"min_updates": 4}))) == 4


def test_over_selection_closes_at_the_target() -> None:
    """Four wanted, six drawn: the fourth update closes the round, the other two are told that it closed."""
    fleet = Fleet(*TEN)
    run = fleet.train(selection={"participation_ratio": 0.4, "over_selection": 0.5})
    drawn = members(run)
    assert len(drawn) == 6
    late = fleet.task(drawn[5])
    for name in drawn[:4]:
        fleet.do(name)
    assert (run.state, run.rounds[0].closed_by) == ("aggregating", "4 of 6 members reported")
    assert len(fleet.aggregate().shares) == 4
    with pytest.raises(RoundClosed):
        fleet.give(late)


def test_a_model_is_needed_by_learners_that_train_and_those_only() -> None:
    """A learner that does no train tasks is no member of a round."""
    fleet = Fleet("a")
    fleet.join("scorer", kinds=["evaluate"])
    run = fleet.train()
    assert members(run) == ["a"]


# ---- what is told
def test_a_round_is_timed_on_the_monotonic_clock() -> None:
    """From offering to fetching, to the last update, through aggregation and evaluation, in milliseconds."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.now += 0.25
    fleet.poll("a")
    fleet.now += 0.25
    fleet.do("b")
    fleet.now += 1.0
    fleet.do("a")
    fleet.now += 0.5
    fleet.aggregate()
    fleet.now += 0.125
    fleet.do("a", "evaluate")
    fleet.now += 0.125
    fleet.do("b", "evaluate")
    told = run.rounds[0].message(str).timings_ms
    assert (told.train_dispatch, told.train_round, told.aggregation) == (500.0, 1500.0, 10.0)
    assert (told.evaluation_dispatch, told.evaluation_round, told.federation_round) == (250.0, 250.0, 2250.0)
    assert told.selection is not None


def test_bytes_up_and_down_are_counted_once() -> None:
    """Each accepted update counts its bytes up, a replay does not; what is sent of its task's model counts down."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    assert run.model is not None
    fleet.federation.offers.note_download(fleet.ids["a"], run.model, 300)
    fleet.federation.offers.note_download(fleet.ids["a"], run.model, 7)  # the rest of a download that was cut
    fleet.federation.offers.note_download("nobody", run.model, 300)
    fleet.federation.offers.note_download(fleet.ids["a"], model("another"), 300)
    task = fleet.task("a")
    fleet.give(task, "x" * 100)
    fleet.give(task, "x" * 100)
    fleet.give(fleet.task("b"), "y" * 50)
    assert run.rounds[0].bytes == m.Bytes(up=150, down=307)


def test_the_log_tells_a_round_in_order() -> None:
    """Events are numbered without gaps, with a sentence and the data of the round."""
    fleet = Fleet("a")
    run = fleet.train()
    fleet.play()
    events = fleet.events()
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    mine = [event.kind for event in events if event.round == 1 and event.kind != "task-offered"]
    assert mine == ["round-started", "update-accepted", "round-aggregated", "update-accepted", "round-closed"]
    (closed,) = [event for event in events if event.kind == "round-closed"]
    assert run.rounds[0].model is not None
    assert closed.data["model"] == run.rounds[0].model.digest
    journal = fleet.federation.journal
    assert all(event.text and journal.message(event).at.endswith("Z") for event in events)
