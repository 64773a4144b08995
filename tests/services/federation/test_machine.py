"""The federation under any sequence of commands: nothing counts twice, rounds only go up, every run moves or ends.

A state machine draws joins, leaves, polls, results, duplicates, late results, failures, heartbeats, jumps of the clock
and commands that must be refused, and looks at the whole federation after each.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant

from services.federation import RunState
from services.scaling import cap_factors
from services.scheduling import streams
from tests.services.fleet import dump
from tests.services.machine import Commands


class FederationMachine(Commands):
    """What always holds, whatever was commanded."""

    def teardown(self) -> None:
        """From wherever it is, with nobody answering any more, a run ends after finitely many deadlines."""
        for _ in range(100):
            self.take_aggregation()
            while self.jobs:
                self.finish_aggregation(fails=9)
            run = self.federation.active
            if run is None or (run.state, run.hold) == ("waiting", "operator"):
                return
            self.alarm()
        assert run is not None
        raise AssertionError(f"the run does not end: {self.fleet.waiting_for(run)}")

    @invariant()
    def nothing_is_left_to_do(self) -> None:
        """A command lets the run move on as far as it can: a tick at the same moment finds nothing."""
        self.fleet.events()
        before = dump(self.federation)
        self.federation.tick(self.fleet.now)
        assert dump(self.federation) == before

    @invariant()
    def a_run_moves_or_ends(self) -> None:
        """An active run has a deadline ahead, or an aggregation in hand, or waits for an operator, and says so."""
        run = self.federation.active
        if run is None:
            assert all(one.over and one.reason for one in self.federation.runs.values())
            return
        assert not run.over
        deadlines = [time for time in run.deadlines() if math.isfinite(time)]
        by_hand = run.state == "waiting" and run.hold == "operator"
        assert deadlines or by_hand or any(one.state == "aggregating" for one in run.open)
        assert all(time > self.fleet.now for time in deadlines)
        assert self.federation.run_message(run, self.fleet.now).waiting_for

    @invariant()
    def rounds_only_go_up(self) -> None:
        """Round numbers are 1, 2, 3, …, a round has one model at the most, and an ended run never changes."""
        for run in self.federation.runs.values():
            assert [one.number for one in run.rounds] == list(range(1, len(run.rounds) + 1))
            assert run.failures <= run.config.schedule.max_failed_rounds
            assert run.over or run.failures < run.config.schedule.max_failed_rounds
            assert not any(one.model and one.failure for one in run.rounds)
            assert len(run.bounds) == 1 + sum(bool(one.model or one.failure) for one in run.rounds)
            assert run.round >= self.rounds.get(run.id, 0)
            self.rounds[run.id] = run.round
            if run.over:
                shown = self.ended.setdefault(run.id, dump(run, without=["outcome"]))
                assert dump(run, without=["outcome"]) == shown
                assert not run.open

    @invariant()
    def tasks_are_in_order(self) -> None:
        """An open task belongs to a live round and a member, and its model is kept; a closed round has none open."""
        kept = self.federation.kept_models()
        known = {task.id for task in self.seen}
        for run in self.federation.runs.values():
            for task in run.tasks():
                if task.id not in known:
                    self.seen.append(task)
                if task.state == "offered":
                    assert not run.over
                    assert self.federation.roster.find(task.learner_id)
                    assert task.model is None or task.model.digest in kept
                assert (task.outcome is not None) == (task.state == "accepted")
            self._closed_rounds_are_closed(run)

    @invariant()
    def who_is_put_aside_has_no_task(self) -> None:
        """And is no member of a round that has begun since."""
        for member in self.federation.roster:
            if member.aside is not None:
                assert self.federation.offers.first(member.id) is None
                assert member.refused >= 3

    @invariant()
    def no_factor_counts_more_than_its_cap(self) -> None:
        """Of what was handed out."""
        for job in self.jobs:
            counts, others = [share.factor for share in job.shares], list(job.beside.values())
            assert counts == cap_factors([share.reported for share in job.shares], job.plan.factor_cap, others)

    def _closed_rounds_are_closed(self, run: RunState) -> None:
        for one in run.rounds:
            tasks = [*one.train.values(), *one.evaluate.values()]
            if one.state != "training":
                assert all(task.state != "offered" for task in one.train.values())
            if one.state == "closed":
                assert all(task.state != "offered" for task in tasks)
            assert one.model is None or len(one.accepted) >= run.config.schedule.min_updates
            assert one.model is None or not streams(run.plan.scheduler) or len(one.accepted) in (1, 2)


FederationMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_federation_machine = pytest.mark.slow(FederationMachine.TestCase)
