"""Learners that join and leave: a round goes on without them and never stalls."""

from __future__ import annotations

import pytest

from services import messages as m
from services.errors import NameTaken, TaskVoid, UnknownLearner
from tests.services.fleet import Fleet, dump

LEASE = {"schedule": {"lease_s": 30}}


# ---- joining
def test_a_name_belongs_to_a_live_learner() -> None:
    """While its holder's lease lives the name is taken, and the refusal changes nothing."""
    fleet = Fleet("a")
    before = dump(fleet.federation)
    with pytest.raises(NameTaken, match="'a' is the name of another learner, which is here"):
        fleet.join("a")
    assert dump(fleet.federation) == before


def test_a_lost_learners_name_goes_to_the_one_that_replaces_it() -> None:
    """After the lease the same name enrols anew with another id; the old one has left and its task is void."""
    fleet = Fleet("a", "b")
    run = fleet.train(**LEASE)
    old, task = fleet.ids["a"], fleet.task("a")
    fleet.stay(29, "b", every=9)
    with pytest.raises(NameTaken):
        fleet.join("a")
    fleet.stay(2, "b")
    assert fleet.join("a").id != old
    with pytest.raises(UnknownLearner):
        fleet.federation.next_task(old, fleet.now)
    with pytest.raises(TaskVoid, match="a left"):
        fleet.give(task)
    assert fleet.poll("a") is None
    fleet.play()
    assert fleet.task("a").round == run.round == 2


def test_a_learner_without_a_name_gets_one() -> None:
    """Names made up for two learners differ."""
    fleet = Fleet()
    names = {fleet.federation.join(m.JoinRequest(), bytes([i]), fleet.now).name for i in range(2)}
    assert len(names) == 2
    assert all(name.startswith("learner-") for name in names)


def test_a_restarted_agent_keeps_its_id_and_its_task() -> None:
    """Reporting back renews the request and the lease; the open task is offered again."""
    fleet = Fleet("a", "b")
    fleet.train()
    task = fleet.task("a")
    member = fleet.federation.rejoin(fleet.ids["a"], m.JoinRequest(name="x", num_training_examples=7), fleet.now)
    assert (member.id, member.name) == (fleet.ids["a"], "a")
    assert member.request.num_training_examples == 7
    assert fleet.poll("a") is task


def test_a_token_leads_to_its_learner_until_it_leaves() -> None:
    """The roster knows a member by the hash of its token, and no longer once it has left."""
    fleet = Fleet()
    member = fleet.join("a")
    assert fleet.federation.roster.by_token(member.token_hash) is member
    assert fleet.federation.roster.by_token(b"another") is None
    fleet.leave("a")
    assert fleet.federation.roster.by_token(member.token_hash) is None


# ---- leaving
@pytest.mark.parametrize("when", ["before it reports", "as the last that is missing", "after it reported"])
def test_a_learner_that_leaves_mid_round_never_stalls_it(when: str) -> None:
    """The member set is looked at again at once; an update that was taken before counts."""
    fleet = Fleet("a", "b", "c")
    run = fleet.train()
    if when == "before it reports":
        fleet.leave("c")
        fleet.do("a")
        fleet.do("b")
    elif when == "as the last that is missing":
        fleet.do("a")
        fleet.do("b")
        fleet.leave("c")
    else:
        fleet.do("c")
        fleet.leave("c")
        fleet.do("a")
        fleet.do("b")
    assert run.state == "aggregating"
    shares = [share.learner for share in fleet.aggregate().shares]
    assert shares == (["a", "b", "c"] if when == "after it reported" else ["a", "b"])
    del fleet.ids["c"]
    fleet.play()
    assert [task.learner for task in run.rounds[1].train.values()] == ["a", "b"]


def test_when_everyone_leaves_the_round_fails_with_a_reason() -> None:
    """Nobody is left to report: it ends in words, not at its deadline, and the run waits for others."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.leave("a")
    fleet.leave("b")
    assert run.rounds[0].failure == "nobody left: 0 updates, at least 1 needed (a: a left; b: b left)"
    assert (run.state, run.hold) == ("waiting", "learners")
    fleet.join("c")
    assert [task.learner for task in run.rounds[1].train.values()] == ["c"]


def test_a_learner_that_left_during_evaluation_is_not_waited_for() -> None:
    """The scores of the others close the round."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.do("a")
    fleet.do("b")
    fleet.aggregate()
    fleet.do("a", "evaluate", accuracy=0.5)
    fleet.leave("b")
    assert (run.state, run.round) == ("training", 2)
    assert run.rounds[0].evaluation.combined == {"accuracy": 0.5}


def test_after_a_round_too_few_learners_are_waited_for_within_a_bound() -> None:
    """Below the quorum the next round waits; it begins when one joins, and the run fails when nobody does."""
    for comes in (True, False):
        fleet = Fleet("a", "b")
        run = fleet.train(schedule={"min_updates": 2, "join_deadline_s": 60})
        fleet.do("a")
        fleet.do("b")
        fleet.leave("b")
        del fleet.ids["b"]
        fleet.play()
        assert run.state == "waiting"
        fleet.stay(59)
        if comes:
            fleet.join("c")
            assert (run.state, run.round) == ("training", 2)
        else:
            fleet.stay(1)
            assert (run.state, run.reason) == ("failed", "only 1 of 2 learners came within 60 s")
