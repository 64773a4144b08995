"""Rows of a federation: written step by step and read again, they make the federation that was written, which goes on
as that one would have; no field can be forgotten."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from services.federation import Aggregation, Assignment, Federation, Member, ModelInfo, RoundState
from services.federation.run import RunState, Stream
from services.state import Batch, Recorder, Row, extend, restore
from services.state.rows import MEMBER, ROUND, RUN, TASK
from tests.services.federation.test_machine import FederationMachine
from tests.services.fleet import EPOCH, THREE_ROUNDS, Fleet, dump
from tests.services.machine import CONFIGS

UNSEEN = ("taken", "plan", "history", "waiting", "progress", "last_seen", "fetched_at", "newest")  # compared otherwise
DERIVED: dict[type[Any], set[str]] = {
    Member: {"waiting", "progress"},  # of connections, which end with the process
    Assignment: set(),
    RoundState: {"taken"},  # an aggregation that was under way is done again
    RunState: {"plan", "history", "bounds", "allowance", "controls", "shifts"},
    Stream: {"newest"},
}
ELSEWHERE: dict[type[Any], set[str]] = {  # in rows of their own, by id, or in the model store
    Member: set(),
    Assignment: set(),
    RoundState: {"train", "evaluate"},
    RunState: {
        *("config", "config_text", "rounds", "zeroth", "open", "initial", "stream", "departed"),
        *("participants", "best", "scores", "aggregator_state", "optimizer_state"),
    },
    Stream: {"training", "arrived", "ended", "resting", "left", "since"},
}


class Clock(Fleet):
    """A fleet whose learners join one after the other, as they do; its ids can be continued."""

    def __init__(self, *names: str) -> None:
        self.given = 0
        super().__init__()
        for name in names:
            self.now += 0.01
            self.join(name)

    @property
    def federation(self) -> Federation:
        """The federation, whose ids are numbered."""
        return self._federation

    @federation.setter
    def federation(self, federation: Federation) -> None:
        self._federation = federation
        federation._new_id = federation.offers._new_id = self.new_id

    def new_id(self) -> str:
        """The next id."""
        self.given += 1
        return f"id-{self.given}"


class Rows:
    """What a database holds."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Row] = {}

    def write(self, batch: Batch) -> None:
        """As Database.write."""
        for row in batch.rows:
            assert row.data is not None or row.kind == "member"
            self.held[row.kind, row.key] = row
        self.held = {key: row for key, row in self.held.items() if row.data and row.run not in batch.forgotten}

    def read(self) -> Federation:
        """A federation made of them, in the order in which a database gives them."""
        made = Federation({}, EPOCH, lambda: "none")
        restore(made, [self.held[key] for key in sorted(self.held)])
        assert not made.changes
        return made


def taken_up(fleet: Fleet, rows: Rows) -> Federation:
    """The restored federation, given what is not written down on purpose: the newest signs of life and downloads."""
    made = rows.read()
    for member in made.roster:
        live = fleet.federation.roster.get(member.id)
        assert member.last_seen <= live.last_seen
        member.last_seen = live.last_seen
    for run in made.runs.values():
        for task in run.tasks():
            if task.state == "offered":
                task.fetched_at = fleet.federation.offers.get(task.id, None).fetched_at
    return made


def shown(federation: Federation, now: float) -> dict[str, Any]:
    """All that a federation shows and decides by."""
    state: dict[str, Any] = {
        "learners": [federation.learner_message(one, now) for one in federation.roster],
        "kept": sorted(federation.kept_models()),
        "deadlines": list(federation.active.deadlines()) if federation.active else [],
        "lapse": federation.roster._first_lapse(federation.lease_s),
        "uploaded": list(federation.uploaded.items()),
        "active": federation.active.id if federation.active else None,
        "runs": list(federation.runs),
    }
    for run in federation.runs.values():
        tasks = list(run.tasks())
        offered = {task.learner_id for task in tasks if task.state == "offered"}
        state[run.id] = {
            "run": federation.run_message(run, now),
            "results": federation.results(run, now),
            "tasks": [federation.task_message(task, now) for task in tasks],
            "offers": {key: list(federation.offers._open.get(key, ())) for key in offered},
            "order": [(one.number, list(one.train), list(one.evaluate)) for one in run.rounds],
            "key": federation.runs.key_of(run.id),
            "scores": run.scores,
            "bounds": run.bounds,
            "best": run.best,
            "newest": {key: one for key, one in run.stream.newest.items() if federation.roster.find(key)},
        }
    return state


def compare(live: Federation, made: Federation, now: float, but: Collection[str] = UNSEEN) -> None:
    """Both show the same and hold the same."""
    here, there = shown(live, now), shown(made, now)
    for key, value in here.items():
        assert there[key] == value, key
    assert there == here
    assert dump(list(made.roster), but) == dump(list(live.roster), but)
    for run in live.runs.values():
        assert dump(made.runs[run.id], but) == dump(run, but)


class KeptMachine(FederationMachine):
    """The federation machine, restored after every step and compared, and now and then gone on with."""

    fleet: Clock

    @initialize(
        names=st.lists(st.sampled_from([f"n{i}" for i in range(5)]), unique=True, min_size=2),
        config=CONFIGS,
        given=st.booleans(),
    )
    def begin(self, names: list[str], config: dict[str, Any], given: bool) -> None:
        self.over(Clock(*names))
        self.rows = Rows()
        self.writing = Recorder(self.federation)
        self.start(config, given)

    @rule(often=st.integers(0, 2))
    def restart(self, often: int) -> None:
        """The process ends, and another goes on: what was being aggregated is due again."""
        if often:
            return
        self.look()
        made = taken_up(self.fleet, self.rows)
        for job in self.jobs:
            self.counted -= {share.blob for share in job.shares}
        self.fleet.federation = self.federation = made
        self.fleet.jobs, self.jobs, self.ended = [], [], {}
        self.seen = [task for run in made.runs.values() for task in run.tasks()]
        self.writing = Recorder(made)
        extend(made, 0.0, self.fleet.now)
        made.tick(self.fleet.now)

    def take_aggregation(self) -> None:
        """What is due is due in a restored one too, and is the same."""
        self.look()
        made = self.rows.read()
        due = copy.copy(made.due())
        before = len(self.jobs)
        super().take_aggregation()
        assert [due] == self.jobs[before:] or (due is None and len(self.jobs) == before) or self.taken_before(due)

    def taken_before(self, due: Aggregation | None) -> bool:
        """Whether it is one that was handed out, and not finished."""
        return due is not None and any((due.run_id, due.round) == (one.run_id, one.round) for one in self.jobs)

    @invariant()
    def look(self) -> None:
        """What is written and read again is the same. Then a moment passes: no two steps are taken at one time."""
        self.rows.write(self.writing.take())
        assert not self.federation.changes
        compare(self.federation, taken_up(self.fleet, self.rows), self.fleet.now)
        self.time_passes(0.01)
        self.rows.write(self.writing.take())

    def teardown(self) -> None:
        """A restored federation goes on exactly as the other."""
        if hasattr(self, "rows"):
            self.look()
            other = copy.copy(self.fleet)
            other.federation = taken_up(self.fleet, self.rows)
            self.fleet.federation = self.federation
            for job in self.jobs:
                self.fleet.aggregated(job)
            for one in self.jobs:
                due = other.federation.due()
                if due is not None and (due.run_id, due.round) == (one.run_id, one.round):
                    other.aggregated(due)
            self.jobs.clear()
            follow(self.fleet, other)
        super().teardown()


def follow(fleet: Clock, other: Clock) -> None:
    """Two fleets do the same until their runs have ended, and show the same all the time."""
    for _ in range(30):
        other.now = fleet.now
        for each in (fleet, other):
            each._federation.offers._new_id = each._federation._new_id = each.new_id
            for name in sorted(each.ids):
                if task := each.poll(name):
                    each.give(task, x=0.3)
            if job := each.federation.due():
                each.aggregated(job)
        compare(fleet.federation, other.federation, fleet.now)
        deadline = fleet.federation.next_deadline()
        if fleet.federation.active is None or deadline is None:
            return


KeptMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink takes minutes
)
test_kept_machine = pytest.mark.slow(KeptMachine.TestCase)


def kept(fleet: Clock) -> None:
    """A writer that wrote each step of the fleet so far, and one that writes it all at once, say the same."""
    rows = Rows()
    rows.write(Recorder(fleet.federation).take())
    compare(fleet.federation, taken_up(fleet, rows), fleet.now)


def test_the_score_of_a_round_that_was_cut_off_does_not_count() -> None:
    """A run that was stopped while its model was evaluated has no best model, also after a restart."""
    fleet = Clock("a", "b")
    run = fleet.train()
    for name in "ab":
        fleet.do(name)
    fleet.aggregate()
    fleet.do("a", "evaluate", accuracy=0.9)
    fleet.federation.stop(run.id, "enough", fleet.now)
    assert run.best is None
    kept(fleet)


def test_who_left_without_a_task_is_remembered() -> None:
    """A learner that rests after a failure leaves an asynchronous run: its update is to leave the rule's state."""
    fleet, rows = Clock("a", "b", "c"), Rows()
    config: dict[str, Any] = {"scheduler": "Asynchronous", "aggregation_rule": "FedRec", "evaluation": {"every": 0}}
    run = fleet.train(**config, termination={"federation_rounds": 9})
    writing = Recorder(fleet.federation)
    fleet.do("a")
    fleet.aggregate()
    fleet.fail("a")
    rows.write(writing.take())
    fleet.leave("a")
    rows.write(writing.take())
    assert run.stream.left
    compare(fleet.federation, taken_up(fleet, rows), fleet.now)


def test_what_learners_hold_of_an_algorithm_follows_from_the_rounds() -> None:
    """Who weighs what in a run's control, whose share has gone and who is leaving, after every step."""
    fleet, rows = Clock("a", "b", "c"), Rows()
    more = {"algorithm": "SCAFFOLD", "termination": {"federation_rounds": 9}, "evaluation": {"every": 0}}
    run = fleet.train(**more)
    writing = Recorder(fleet.federation)

    def restarted() -> None:
        rows.write(writing.take())
        compare(fleet.federation, taken_up(fleet, rows), fleet.now)

    for leaver in ("", "a", "", "b"):
        for name in [one for one in "abc" if one in fleet.ids]:
            fleet.do(name)
            restarted()
        if leaver:
            fleet.leave(leaver)
            del fleet.ids[leaver]
            restarted()
        fleet.aggregate()
        restarted()
    assert (run.round, len(run.controls.held), len(run.shifts)) == (5, 2, 1)


def test_what_an_operator_is_waited_for_is_remembered() -> None:
    """A run that is driven by hand has its learners, who may be lost again, and waits for the operator alone."""
    fleet, rows = Clock(), Rows()
    model = ModelInfo("sha256-" + "1" * 64, 1)
    given = {**THREE_ROUNDS, "advance": "manual", "initial_model": model.digest}
    run = fleet.federation.start(given, fleet.now, held=lambda digest: model)
    writing = Recorder(fleet.federation)
    rows.write(writing.take())
    fleet.join("a")
    fleet.federation.tick(fleet.now)
    assert (run.state, run.hold) == ("waiting", "operator")
    rows.write(writing.take())
    compare(fleet.federation, taken_up(fleet, rows), fleet.now)


def test_how_many_learners_there_were_is_remembered() -> None:
    """A rule may need it: who comes while the round is aggregated does not count in it, after a restart neither."""
    fleet, rows = Clock("a", "b"), Rows()
    fleet.train()
    for name in "ab":
        fleet.do(name)
    fleet.join("c")
    rows.write(Recorder(fleet.federation).take())
    due, again = fleet.federation.due(), rows.read().due()
    assert due is not None
    assert again is not None
    assert due.learners == again.learners == 2


def test_the_time_away_counts_for_nobody() -> None:
    """Leases begin anew, deadlines are that much later; who was lost stays lost."""
    fleet, rows = Clock("a", "b", "c"), Rows()
    run = fleet.train()
    fleet.stay(40, "a", "b")
    rows.write(Recorder(fleet.federation).take())
    made, now = rows.read(), fleet.now + 5000.0
    extend(made, 5000.0, now)
    made.tick(now)
    again = made.runs[run.id]
    assert (again.state, again.round) == (run.state, run.round)
    assert [one.deadline for one in again.open] == [one.deadline + 5000.0 for one in run.open]
    late = [task.deadline for task in again.tasks() if task.state == "offered"]
    assert late == [task.deadline + 5000.0 for task in run.tasks() if task.state == "offered"]
    assert {one.name: one.state for one in made.roster} == {"a": "active", "b": "active", "c": "lost"}


@pytest.mark.parametrize(
    ("kind", "record"), [(Member, MEMBER), (Assignment, TASK), (RoundState, ROUND), (RunState, RUN), (Stream, None)]
)
def test_every_field_is_written_or_known_to_be_derived(kind: type[Any], record: Any) -> None:
    """Who adds a field has to say what becomes of it."""
    written = set(record._types) if record else set()
    listed = DERIVED[kind] | ELSEWHERE[kind]
    assert not written & listed
    assert written | listed == {one.name for one in fields(kind)}


def test_a_closed_round_is_written_once() -> None:
    """Also while an earlier one waits for the scores of a learner that sends none."""
    fleet = Fleet("anna", "ben")
    rounds = {"termination": {"federation_rounds": 12}, "aggregation_rule": "FedAsync", "scheduler": "Asynchronous"}
    recorder = Recorder(fleet.federation)
    run = fleet.train(**rounds)
    fleet.do("ben")
    fleet.aggregate()  # he is to evaluate that, and does not
    written: Counter[str] = Counter()
    while len(run.rounds) < 10:
        task = fleet.poll("anna")
        assert task is not None
        fleet.give(task, score=0.5)
        if job := fleet.federation.due():
            fleet.aggregated(job)
        written.update(row.key for row in recorder.take().rows if row.kind == "round")
    assert run.rounds[0].state != "closed"
    assert max(written[f"{run.id}/{number}"] for number in range(2, 9)) <= 4
