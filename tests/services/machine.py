"""Random commands to a federation: each does what it should, or is refused and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Several
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from services import messages as m
from services.errors import (
    DifferentBody,
    FederationError,
    Forbidden,
    InvalidConfig,
    InvalidRequest,
    NameTaken,
    NotManual,
    RoundClosed,
    RunActive,
    TaskVoid,
    UnknownLearner,
    UnknownRun,
    UnknownTask,
)
from services.federation import Aggregation, Assignment
from services.scheduling import streams
from tests.services.fleet import Fleet, dump, model

NAMES = [f"n{i}" for i in range(5)]
SCORES = st.sampled_from([None, 0.1, 0.5, 0.95])
GIVEN = model("put before")
Done = list[tuple[Assignment, m.Receipt]]
SIGNALS = st.sampled_from(
    [
        {"federation_rounds": 2},
        {"federation_rounds": 4},
        {"federation_rounds": 5, "execution_cutoff_time_mins": 4.1},
        {"federation_rounds": 6, "evaluation_metric": "x", "evaluation_metric_cutoff_score": 0.9},
        {"federation_rounds": 6, "evaluation_metric": "x", "patience_rounds": 2},
    ]
)
STREAMS = st.fixed_dictionaries(
    {
        "scheduler": st.just("Asynchronous"),
        "seed": st.integers(0, 3),
        "min_learners": st.integers(1, 2),
        "aggregation_rule": st.sampled_from(["FedAvg", "FedRec", "FedAsync", "FedBuff"]),
        "schedule": st.fixed_dictionaries(
            {
                "round_deadline_s": st.sampled_from([20, 100]),
                "join_deadline_s": st.sampled_from([50, 200]),
                "lease_s": st.sampled_from([10, 30, 1000]),
                "max_staleness": st.sampled_from([None, 0, 1]),
            }
        ),
        "evaluation": st.fixed_dictionaries({"every": st.integers(0, 2), "initial": st.booleans()}),
        "termination": SIGNALS,
    }
).map(lambda config: config | ({"aggregation": {"buffer_size": 2}} if config["aggregation_rule"] == "FedBuff" else {}))
ROUNDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "min_learners": st.integers(1, 2),
        "advance": st.sampled_from(["auto", "auto", "manual"]),
        "selector": st.sampled_from(["All", "RoundRobin", "PowerOfChoice"]),
        "selection": st.fixed_dictionaries(
            {"participation_ratio": st.sampled_from([0.3, 0.6, 1.0]), "over_selection": st.sampled_from([0, 0, 0.5])}
        ),
        "schedule": st.fixed_dictionaries(
            {
                "round_deadline_s": st.sampled_from([20, 100]),
                "join_deadline_s": st.sampled_from([50, 200]),
                "lease_s": st.sampled_from([10, 30, 1000]),
                "min_updates": st.integers(1, 2),
            }
        ),
        "evaluation": st.fixed_dictionaries(
            {"every": st.integers(0, 2), "initial": st.booleans(), "overlap": st.booleans()}
        ),
        "termination": SIGNALS,
    }
)
CONFIGS = st.one_of(ROUNDS, ROUNDS, STREAMS)


class Commands(RuleBasedStateMachine):
    """Random commands, in an order that no test would think of."""

    results = Several("results")

    @initialize(names=st.lists(st.sampled_from(NAMES), unique=True, min_size=2), config=CONFIGS, given=st.booleans())
    def begin(self, names: list[str], config: dict[str, Any], given: bool) -> None:
        self.over(Fleet(*names))
        self.start(config, given)

    def over(self, fleet: Fleet) -> None:
        """Command this fleet."""
        self.fleet = fleet
        self.federation = self.fleet.federation
        self.fleet.factors = {"n0": 2.0**53, "n1": 7.0, "n2": 0.0}
        self.jobs: list[Aggregation] = []
        self.counted: set[str | None] = set()
        self.seen: list[Assignment] = []
        self.rounds: dict[str, int] = {}
        self.ended: dict[str, Any] = {}

    # ---- learners
    @rule(name=st.sampled_from(NAMES), trains=st.booleans())
    def join(self, name: str, trains: bool) -> None:
        holder = self.federation.roster.holder(name)
        self.federation.tick(self.fleet.now)
        if holder is not None and holder.state == "active":
            self.refused(NameTaken, lambda: self.fleet.join(name))
        else:
            self.fleet.join(name, kinds=["init", "train", "evaluate"] if trains else ["evaluate"])

    @precondition(lambda self: self.fleet.ids)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.fleet.ids)))
        self.fleet.leave(name)
        gone = self.fleet.ids.pop(name)
        self.refused(UnknownLearner, lambda: self.federation.next_task(gone, self.fleet.now))
        self.refused(UnknownLearner, lambda: self.federation.leave(gone, self.fleet.now))

    @precondition(lambda self: self.fleet.ids)
    @rule(data=st.data())
    def poll(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.fleet.ids)))
        task = self.fleet.poll(name)
        assert task is self.fleet.poll(name)
        assert task is None or (task.state, task.learner_id) == ("offered", self.fleet.ids[name])

    @rule(target=results, name=st.sampled_from(NAMES), score=SCORES)
    def one_works(self, name: str, score: float | None) -> Done:
        return self.do_tasks([name], score)

    @rule(target=results, names=st.permutations(NAMES), score=SCORES)
    def all_work(self, names: list[str], score: float | None) -> Done:
        return self.do_tasks(names, score)

    @rule(target=results, names=st.permutations(NAMES), score=SCORES)
    def all_work_and_aggregate(self, names: list[str], score: float | None) -> Done:
        done = self.do_tasks(names, score)
        self.take_aggregation()
        if self.jobs:
            self.finish_aggregation(fails=9)
        return done + self.do_tasks(names, score)

    def do_tasks(self, names: list[str], score: float | None) -> Done:
        """Those of the learners that have a task do it."""
        done = []
        for name in names:
            task = self.fleet.poll(name) if name in self.fleet.ids else None
            if task is not None:
                receipt, taken = self.fleet.give(task, x=score)
                assert taken
                assert receipt.learner == name
                done.append((task, receipt))
        return done

    @rule(done=results)
    def send_again(self, done: Done) -> None:
        """A duplicate changes nothing but the time at which its learner was heard of; another body is refused."""
        for task, receipt in done:
            if task.run_id in self.federation.runs:
                before = dump(self.federation)
                assert self.fleet.give(task) == (receipt, False)
                assert dump(self.federation) == before
                self.refused(DifferentBody, partial(self.fleet.give, task, "another"))

    @rule(data=st.data())
    def send_late(self, data: st.DataObject) -> None:
        """The result of a task that was ever given up or void is refused."""
        void = [task for task in self.seen if task.state in ("failed", "void")]
        if void:
            task = data.draw(st.sampled_from(void))
            self.refused((RoundClosed, TaskVoid), lambda: self.fleet.give(task))

    @precondition(lambda self: self.fleet.ids)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.fleet.ids)))
        if task := self.fleet.poll(name):
            self.fleet.fail(name)
            before = dump(self.federation)
            self.federation.fail(task.id, task.learner_id, "again", self.fleet.now)
            assert dump(self.federation) == before

    @precondition(lambda self: self.fleet.ids)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """An update is refused; once more for the same task changes nothing. Of an evaluation nothing is counted."""
        name = data.draw(st.sampled_from(sorted(self.fleet.ids)))
        if task := self.fleet.poll(name):
            self.federation.refuse(task.id, "not finite", self.fleet.now)
            before = dump(self.federation)
            self.federation.refuse(task.id, "not finite", self.fleet.now)
            assert dump(self.federation) == before

    @precondition(lambda self: self.fleet.ids)
    @rule(data=st.data())
    def readmit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.fleet.ids)))
        assert self.federation.readmit(self.fleet.ids[name], self.fleet.now).aside is None

    @rule(seconds=st.floats(0, 9), names=st.sets(st.sampled_from(NAMES), min_size=4))
    def most_beat(self, seconds: float, names: set[str]) -> None:
        """Time passes and most learners are heard of."""
        self.time_passes(seconds)
        for name in sorted(names & set(self.fleet.ids)):
            self.federation.heartbeat(self.fleet.ids[name], m.Heartbeat(), self.fleet.now)

    # ---- runs
    @rule(config=CONFIGS, given=st.booleans())
    def start(self, config: dict[str, Any], given: bool) -> None:
        if self.federation.active:
            self.refused(RunActive, lambda: self.fleet.start(config))
            return
        self.refused(InvalidConfig, lambda: self.federation.start({"scheduler": "?"}, self.fleet.now))
        if config["evaluation"]["every"] == 0 and "evaluation_metric" in config["termination"]:
            self.refused(InvalidConfig, lambda: self.federation.start(config, self.fleet.now))
        else:
            named = {"scaling_factor": "NumParticipants"} | ({"initial_model": GIVEN.digest} if given else {})
            self.federation.start(config | named, self.fleet.now, held={GIVEN.digest: GIVEN}.get)

    @precondition(lambda self: self.federation.active)
    @rule(ahead=st.integers(0, 3))
    def advance(self, ahead: int) -> None:
        run = self.federation.find_run("current")
        ask = lambda number: lambda: self.federation.next_round(run.id, number, self.fleet.now)  # noqa: E731
        if run.config.advance == "auto":
            self.refused(NotManual, ask(None))
        elif ahead > 1:
            self.refused(InvalidRequest, ask(run.round + ahead))
        else:
            number = max(1, run.round + ahead)
            ask(number)()
            ask(number)()
            assert run.round <= number

    @precondition(lambda self: self.federation.active)
    @rule(often=st.integers(0, 5))
    def stop(self, often: int) -> None:
        if often == 0:
            self.federation.stop("current", "enough", self.fleet.now)

    # ---- aggregation, which takes its time
    @rule()
    def take_aggregation(self) -> None:
        if job := self.federation.due():
            blobs = [share.blob for share in job.shares]
            assert len(blobs) == len(set(blobs)) >= 1
            run = self.federation.runs[job.run_id]
            new = {task.outcome.blob for task in run.rounds[job.round - 1].accepted if task.outcome}
            assert new  # those beside them in an asynchronous run are everybody's newest
            assert not self.counted & new  # no update enters twice
            self.counted |= new
            assert new <= set(blobs) or streams(run.plan.scheduler)
            assert [share.learner for share in job.shares] == sorted(share.learner for share in job.shares)
            self.jobs.append(job)
        assert self.federation.due() is None

    @precondition(lambda self: self.jobs)
    @rule(fails=st.integers(0, 9))
    def finish_aggregation(self, fails: int) -> None:
        job = self.jobs.pop(0)
        if fails == 0:
            self.federation.aggregation_failed(job, "no memory", self.fleet.now)
        elif fails <= 3:
            self.federation.round_failed(job, "it overflows", self.fleet.now)
        else:
            self.fleet.aggregated(job)

    # ---- time
    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 3.3, 9.7, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.now += seconds
        self.federation.tick(self.fleet.now)

    @rule()
    def alarm(self) -> None:
        """The clock's alarm rings at the next deadline; then the next one lies in the future."""
        deadline = self.federation.next_deadline()
        if deadline is not None and math.isfinite(deadline):
            self.fleet.now = max(self.fleet.now, deadline)
            self.federation.tick(self.fleet.now)
            after = self.federation.next_deadline()
            assert after is None or after > self.fleet.now

    @rule()
    def ask_nonsense(self) -> None:
        """Names of nothing are refused."""
        now = self.fleet.now
        self.refused(UnknownTask, lambda: self.federation.check("id-0", None))
        self.refused(UnknownTask, lambda: self.federation.fail("id-0", None, "x", now))
        self.refused(UnknownRun, lambda: self.federation.stop("id-0", "x", now))
        self.refused(UnknownLearner, lambda: self.federation.heartbeat("id-0", m.Heartbeat(), now))
        if self.seen:
            self.refused(Forbidden, lambda: self.federation.check(self.seen[-1].id, "id-0"))

    def refused(
        self, kind: type[FederationError] | tuple[type[FederationError], ...], call: Callable[[], object]
    ) -> None:
        """The call is refused with this error and changes nothing at all."""
        before = dump(self.federation)
        try:
            call()
        except kind:
            assert dump(self.federation) == before
        else:
            raise AssertionError(f"not refused with {kind}")
