"""Starting a run: waiting for learners within a bound, then model 0 from one of them."""

from __future__ import annotations

import pytest

from services.errors import TaskVoid, UnknownModel
from services.selection import Candidate, draw_order
from tests.services.fleet import THREE_ROUNDS, Fleet, model

NAMES = [f"learner-{i}" for i in range(6)]


def asked(fleet: Fleet) -> list[str]:
    """Names of the learners that are to give initial weights now."""
    return [name for name in fleet.ids if (task := fleet.poll(name)) and task.kind == "init"]


# ---- waiting for learners
def test_a_run_waits_until_enough_learners_are_here() -> None:
    """With two of three it waits, saying for how many and how long; the third sets it going."""
    fleet = Fleet("a", "b")
    run = fleet.start(min_learners=3, schedule={"join_deadline_s": 60})
    assert run.state == "waiting"
    fleet.stay(20)
    assert fleet.waiting_for(run) == "waiting for 1 more of 3 learners; here: a, b; gives up in 40 s"
    fleet.join("c")
    assert run.state == "initializing"


def test_a_run_does_not_wait_for_learners_for_ever() -> None:
    """At its bound it fails, saying how many came."""
    fleet = Fleet("a", "b")
    run = fleet.start(min_learners=3, schedule={"join_deadline_s": 60})
    fleet.stay(59.9)
    assert not run.over
    fleet.stay(0.2)
    assert (run.state, run.reason) == ("failed", "only 2 of 3 learners came within 60 s")


def test_a_lost_learner_or_one_that_cannot_train_is_not_here() -> None:
    """Only learners that are active and do train tasks count; a lost one counts again when it returns."""
    fleet = Fleet("a", "b")
    fleet.join("viewer", kinds=["evaluate"])
    fleet.stay(40, "a", "viewer")
    run = fleet.start(min_learners=2)
    assert fleet.waiting_for(run) == (
        "waiting for 1 more of 2 learners; here: a; not heard of: b (lost), last seen 40 s ago; gives up in 3600 s"
    )
    fleet.poll("b")
    assert run.state == "initializing"


def test_the_quorum_is_waited_for_too() -> None:
    """A run whose rounds need three updates does not begin with the two learners that it asks for."""
    fleet = Fleet("a", "b")
    run = fleet.start(min_learners=1, schedule={"min_updates": 3})
    assert run.state == "waiting"
    fleet.join("c")
    assert run.state == "initializing"


# ---- model 0
def test_one_learner_drawn_by_the_seed_gives_model_0() -> None:
    """Exactly one is asked; the same one for the same seed and names, whatever their order; others for other seeds."""
    first = []
    for seed in range(10):
        fleet, turned = Fleet(*NAMES), Fleet(*reversed(NAMES))
        fleet.start(seed=seed)
        turned.start(seed=seed)
        expected = draw_order([Candidate(fleet.ids[name], name) for name in NAMES], seed)[0].name
        assert asked(fleet) == asked(turned) == [expected]
        first += asked(fleet)
    assert len(set(first)) > 2


def test_the_initial_weights_become_model_0_which_all_train_from() -> None:
    """The first task of every learner names model 0; the run shows it."""
    fleet = Fleet(*NAMES)
    run = fleet.train()
    assert run.model is not None
    assert (run.state, run.round) == ("training", 1)
    assert {fleet.task(name).model for name in NAMES} == {run.model}
    assert run.aggregations == 0


@pytest.mark.parametrize("how", ["fails", "leaves", "is lost", "takes too long"])
def test_the_next_of_the_draw_is_asked_when_one_gives_nothing(how: str) -> None:
    """A learner that fails, leaves, is lost or takes too long is passed over, and its late weights are not taken."""
    fleet = Fleet("a", "b", "c")
    run = fleet.start(schedule={"round_deadline_s": 100, "lease_s": 30})
    (first,) = asked(fleet)
    task = fleet.task(first, "init")
    if how == "fails":
        fleet.fail(first)
    elif how == "leaves":
        fleet.leave(first)
        del fleet.ids[first]
    elif how == "is lost":
        fleet.stay(35, *({"a", "b", "c"} - {first}))
    else:
        fleet.stay(100)
    (second,) = asked(fleet)
    assert second != first
    with pytest.raises(TaskVoid):
        fleet.give(task)
    fleet.do(second, "init")
    assert run.state == "training"


def test_when_nobody_gives_weights_the_run_fails_with_every_reason() -> None:
    """The draw is finite: each is asked once, and the end tells what each answered."""
    fleet = Fleet("a", "b", "c")
    run = fleet.start()
    answered = []
    while not run.over:
        (name,) = asked(fleet)
        answered.append(name)
        fleet.fail(name, f"Traceback\n  line\nValueError: {name} has no model")
    assert sorted(answered) == ["a", "b", "c"]
    told = "; ".join(f"{name}: ValueError: {name} has no model" for name in answered)
    assert (run.state, run.reason) == ("failed", f"no learner gave initial weights ({told})")


def test_of_many_that_give_no_weights_the_first_are_named() -> None:
    """A run's reason does not grow with the federation."""
    fleet = Fleet(*(f"learner-{number:03}" for number in range(40)))
    run = fleet.start()
    while not run.over:
        fleet.fail(asked(fleet)[0], "x" * 20_000)
    assert run.reason is not None
    assert run.reason.count("learner-") == 10
    assert run.reason.endswith("; …)")
    assert len(run.reason) < 11 * 500


def test_learners_that_do_no_init_are_not_asked() -> None:
    """When none of them does, the run fails and says so."""
    fleet = Fleet()
    fleet.join("a", kinds=["train"])
    fleet.join("b", kinds=["train", "init"])
    run = fleet.start()
    assert asked(fleet) == ["b"]
    fleet.federation.stop(run.id, "x", fleet.now)
    fleet.leave("b")
    run = fleet.start()
    assert run.reason == "no learner gave initial weights (none of them does init tasks)"


def test_a_model_that_was_put_before_needs_no_learners_weights() -> None:
    """The run begins with it at once; one that is not held is refused and no run is left."""
    fleet, info = Fleet("a"), model("put before")
    config = {**THREE_ROUNDS, "initial_model": info.digest}
    with pytest.raises(UnknownModel, match=info.digest):
        fleet.federation.start(config, fleet.now)
    assert not fleet.federation.runs
    run = fleet.federation.start(config, fleet.now, held={info.digest: info}.get)
    assert (run.state, run.model) == ("training", info)
    assert fleet.task("a").model == info


def test_everyone_enrolled_at_model_0_is_in_round_1_and_later_ones_in_round_2() -> None:
    """A learner that joins while the initial weights are made is a member; one that joins in round 1 waits for 2."""
    fleet = Fleet("a")
    run = fleet.start()
    fleet.join("b")
    fleet.do("a", "init")
    fleet.join("c")
    assert [task.learner for task in run.rounds[0].train.values()] == ["a", "b"]
    assert fleet.poll("c") is None
    fleet.play("a", "b")
    assert [task.learner for task in run.rounds[1].train.values()] == ["a", "b", "c"]
    assert fleet.task("c").round == 2
