"""How an asynchronous run moves on: whoever has reported gets its next task at once, and models follow each other.

A community model is made of so many updates as the rule takes at a time, one model after the other. Nothing is waited
for without a bound: a task that is not done in `round_deadline_s` is void, and a run in which no community model comes
about for so long fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ..aggregation import Aggregator, arrivals
from ..scheduling import Pending, wait_text
from .offers import Offers
from .roster import Member, Roster
from .rounds import Assignment, RoundState
from .run import RunState

End = Callable[[RunState, Literal["completed", "stopped", "failed"], str, str, float], None]


class Streaming:
    """The moves of asynchronous runs."""

    def __init__(self, roster: Roster, offers: Offers, end: End) -> None:
        self._roster = roster
        self._offers = offers
        self._end = end

    def begin(self, run: RunState, now: float) -> None:
        """The first model is there."""
        run.state, run.stream.since = "training", now

    def move_on(self, run: RunState, now: float) -> bool:
        """Take the step that is due, if there is one."""
        if run.state != "training":
            return False
        return (
            self._give_up_late(run, now)
            or run.stream.sort()
            or self._commit(run, now)
            or self._offer(run, now)
            or self._fail_when_stuck(run, now)
        )

    def made(self, run: RunState, now: float) -> None:
        """A community model was made: learners that rested go on, and who trains from too old a model stops."""
        run.stream.since = now
        run.stream.resting.clear()
        oldest = run.config.schedule.max_staleness
        for task in list(run.stream.training.values()):
            age = run.made(task.round)
            if oldest is not None and age > oldest and task.state == "offered":
                task.void_as = "stale"
                why = f"the model it was trained from is {age} community models old, at most {oldest} are allowed"
                self._offers.give_up(task, "void", why, now)

    def stop_training(self, run: RunState, now: float) -> None:
        """The last community model is made: nobody need train on."""
        for task in run.stream.training.values():
            if task.state == "offered":
                self._offers.give_up(task, "void", "the last community model is made", now)
        run.stream.sort()

    # ---- the steps
    def _give_up_late(self, run: RunState, now: float) -> bool:
        late = [task for task in run.stream.training.values() if task.state == "offered" and now >= task.deadline]
        for task in late:
            why = f"not done within {run.config.schedule.round_deadline_s:g} s"
            task.void_as = "stale"
            self._offers.give_up(task, "void", why, now)
        return bool(late)

    def _commit(self, run: RunState, now: float) -> bool:
        """Begin to make the next community model when there are updates enough."""
        wanted = _wanted(run.plan.aggregator)
        if len(run.stream.arrived) < wanted or any(one.state == "aggregating" for one in run.open):
            return False
        assert run.model is not None
        tasks, run.stream.arrived = run.stream.arrived[:wanted], run.stream.arrived[wanted:]
        began = min(task.offered_at for task in tasks)
        one = RoundState(run.round + 1, run.model, began, now, wanted, factor_cap=run.plan.factor_cap)
        one.train = {task.id: task for task in sorted(tasks, key=lambda task: (task.learner, task.round))}
        one.closed_by = f"{len(tasks)} update{'s' if len(tasks) > 1 else ''} arrived"
        one.state, one.learners = "aggregating", len(self._roster)
        run.begin(one)
        return True

    def _offer(self, run: RunState, now: float) -> bool:
        """A task for everyone who is here and has none, but whose update is about to become part of a model."""
        assert run.model is not None
        busy = {task.learner_id for one in run.open if one.model is None for task in one.train.values()}
        if len(run.stream.arrived) >= _wanted(run.plan.aggregator):
            busy |= {task.learner_id for task in run.stream.arrived}
        free = [one for one in self._roster if one.can("train") and self._may_begin(run, one, busy)]
        deadline = now + run.config.schedule.round_deadline_s
        for member in sorted(free, key=lambda member: member.name):
            run.stream.training[member.id] = self._offers.offer(
                run.id, run.finished + 1, "train", member, run.model, now, deadline, run.config.encoding
            )
        return bool(free)

    @staticmethod
    def _may_begin(run: RunState, member: Member, busy: set[str]) -> bool:
        return member.id not in run.stream.training and member.id not in busy and member.id not in run.stream.resting

    def _fail_when_stuck(self, run: RunState, now: float) -> bool:
        """Nothing came about for too long, or nobody is left who could bring it about."""
        stream = run.stream
        if any(one.state == "aggregating" for one in run.open):
            return False
        failures = "; ".join(f"{task.learner}: {task.reason}" for task in stream.ended[-3:])
        told = f" ({failures})" if failures else ""
        if now >= run.stream.since + run.config.schedule.round_deadline_s:
            why = f"no community model came about within {run.config.schedule.round_deadline_s:g} s{told}"
        elif stream.resting and not stream.training:
            why = f"nobody is left to train{told}"
        else:
            return False
        self._end(run, "failed", why, "failure", now)
        return True


def waiting_text(run: RunState, look: Callable[[Assignment], Pending], now: float) -> str:
    """What an asynchronous run waits for, in words; `look` tells how a task's learner is doing."""
    if made := [one for one in run.open if one.state == "aggregating"]:
        return f"aggregating {len(made[0].accepted)} updates into model {made[0].number}"
    wanted, tasks = _wanted(run.plan.aggregator), run.stream.training.values()
    pending = [look(task) for task in sorted(tasks, key=lambda task: task.learner)]
    left = max(0.0, run.stream.since + run.config.schedule.round_deadline_s - now)
    what = f"{max(0, wanted - len(run.stream.arrived))} more of {wanted} updates"
    return wait_text(what, pending, f"the run fails in {left:.0f} s if no model comes about")


def _wanted(rule: Aggregator) -> int:
    """How many updates make the next community model."""
    how = arrivals(rule)
    assert how is not None  # plan() lets no other rule through
    return how.count
