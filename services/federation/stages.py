"""How a run moves on: waiting, initializing, training, aggregating, evaluating, and its end.

Each stage is a function that takes the one step that is due, or none. `move_on` is called after every change and at
every deadline; it never waits and may be called at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from .. import messages as m
from .. import termination
from ..errors import DifferentBody, InvalidRequest, TaskVoid
from ..scheduling import Fail, Pending, RoundView, SemiSynchronous, Wait, budgets, streams
from ..selection import draw_count, draw_order, in_order, target_count
from .asynchronous import Streaming
from .journal import Journal
from .offers import Offers
from .roster import Member, Roster
from .rounds import Assignment, RoundState
from .run import RunState

NAMED_ASIDE = 5  # learners that are named while others are waited for
NAMED_FAILED = 10  # learners whose reasons are in that of the run


class Stages:
    """The moves of runs over one roster. `on_end(run)` is told when a run has ended."""

    def __init__(
        self,
        roster: Roster,
        offers: Offers,
        journal: Journal,
        on_end: Callable[[RunState, float], None],
        stopwatch: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._offers = offers
        self._journal = journal
        self._on_end = on_end
        self._stopwatch = stopwatch
        self._streaming = Streaming(roster, offers, self.end)

    def move_on(self, run: RunState, now: float) -> None:
        """Take every step that is due."""
        while not run.over:
            if ending := termination.out_of_time(run.config.termination, run.started_at, now):
                self.end(run, "completed", ending.reason, ending.signal, now)
                return
            before = run.state
            moved = self._leave_waiting(run, now) or self._leave_initializing(run, now) or self._leave_round(run, now)
            if not moved and streams(run.plan.scheduler):
                moved = self._streaming.move_on(run, now)
            if not moved:
                return
            self._roster.changes.runs.add(run.id)
            if run.state != before and not run.over:
                self._emit(run, now, "run-state", run.state, state=run.state)

    def end(
        self, run: RunState, state: Literal["completed", "stopped", "failed"], reason: str, signal: str, now: float
    ) -> None:
        """The run is over; its open tasks are void."""
        self._offers.void_all(None, run.id, f"the run ended: {reason}", now)
        for one in run.open:
            one.state, one.completed_at = "closed", now
            one.closed_by = one.closed_by or f"the run ended: {reason}"
        run.open.clear()
        run.state, run.reason, run.ended_by, run.ended_at = state, reason, signal, now
        self._on_end(run, now)
        self._emit(run, now, "run-ended", f"run {run.id} {state}: {reason}", state=state, reason=reason)

    def evaluate(self, run: RunState, one: RoundState, now: float) -> None:
        """A round's model is there: have its members evaluate it when it is its turn, or when the run ends with it."""
        plan, streaming = run.config.evaluation, streams(run.plan.scheduler)
        ending = termination.after_round(run.config.termination, run.aggregations, run.scores)
        members: list[Member] = []
        if plan.every and (one.number % plan.every == 0 or ending):
            one.asks_driver = plan.who == "driver"
            everybody = plan.who == "everybody" or (streaming and ending is not None)
            members = [] if one.asks_driver else self._evaluators(one, everybody)
        if streaming:
            self._streaming.made(run, now)
            if ending:
                self._streaming.stop_training(run, now)
        self._offer_evaluation(run, one, members, now)
        if streaming and not ending:
            return
        run.state = "evaluating"
        if plan.overlap and (members or one.asks_driver) and not ending and run.config.advance == "auto":
            self._begin_round(run, now)
        if members:
            self._emit(run, now, "run-state", run.state, state=run.state)

    def fail_round(self, run: RunState, one: RoundState, why: str, now: float) -> None:
        """A round made no model: go on with the next one, or end the run when too many failed in a row."""
        one.failure, one.bounds = why, run.bounds[-1]
        run.bounds.append(one.bounds)
        failures, most = run.failures, run.config.schedule.max_failed_rounds
        one.state, one.completed_at = "closed", now
        run.open.remove(one)
        going = f"the model stays as it was, the run goes on ({failures} of {most} in a row that end it)"
        text = f"round {one.number} failed: {one.failure}" + (f"; {going}" if failures < most else "")
        self._emit(run, now, "round-failed", text, one.number, reason=one.failure)
        self._tell_closed(run, one, now)
        if failures >= most:
            reason = f"round {one.number}: {one.failure}"
            if failures > 1:
                reason = f"{failures} rounds in a row made no model (schedule.max_failed_rounds), the last one {reason}"
            self.end(run, "failed", reason, "failure", now)
        elif not streams(run.plan.scheduler):
            self._next_round(run, now)

    def take_scores(self, run: RunState, number: int, scores: m.Metrics, now: float) -> RoundState:
        """The driver's scores of a round's model. Raises InvalidRequest, TaskVoid, DifferentBody."""
        if run.config.evaluation.who != "driver":
            raise InvalidRequest(
                'the learners of this run evaluate; post it with evaluation.who = "driver"', run=run.id
            )
        one = run.rounds[number - 1] if 0 < number <= run.round else None
        if one is None or (one.model is None and one.failure is None and not run.over):
            raise InvalidRequest(f"round {number} has no model yet to have scores of", run=run.id)
        if one.driver_scores is not None and one.driver_scores != scores:
            raise DifferentBody(f"round {number} has other scores already", run=run.id)
        if one.driver_scores is None and (one not in run.open or not one.asks_driver):
            raise TaskVoid(f"round {number} is over, or its model is not to be evaluated", run=run.id)
        if one.driver_scores is None:
            one.driver_scores = scores
            self._emit(run, now, "driver-scored", f"the driver scored model {number}", number, metrics=scores)
        return one

    def _evaluators(self, one: RoundState, everybody: bool) -> list[Member]:
        """Its members that can evaluate, or everybody who can."""
        ids = [member.id for member in self._roster] if everybody else [task.learner_id for task in one.train.values()]
        once = dict.fromkeys(ids)  # of a stream one learner may have made several of the updates
        return _present([member for key in once if (member := self._roster.find(key)) and member.can("evaluate")])

    # ---- waiting
    def here(self) -> list[Member]:
        """Learners that can train now."""
        return [member for member in self._roster if member.can("train")]

    def lost(self, now: float) -> list[Pending]:
        """Learners that could train and are silent, those that were heard of last first."""
        gone = [one for one in self._roster if one.state == "lost" and "train" in one.request.kinds]
        return [Pending(one.name, True, now - one.last_seen) for one in sorted(gone, key=lambda one: -one.last_seen)]

    def aside(self) -> list[str]:
        """Learners that could train and were put aside, each with what lets it back; only some of many."""
        names = sorted(one.name for one in self._roster if one.aside is not None and one.state == "active")
        return [f"{name} (`metis readmit {name}`)" for name in names[:NAMED_ASIDE]] + ["…"] * (len(names) > NAMED_ASIDE)

    def wanted(self, run: RunState) -> int:
        """Learners that must be here: `min_learners` to begin with, later the quorum."""
        quorum = max(1, run.config.schedule.min_updates)
        return quorum if run.rounds else max(quorum, run.config.min_learners)

    def _leave_waiting(self, run: RunState, now: float) -> bool:
        if run.state != "waiting" or run.hold == "operator":
            return False
        here, wanted = len(self.here()), self.wanted(run)
        if here >= wanted:
            if run.model is not None:
                self._next_round(run, now)
            else:
                run.state = "initializing"
                run.draw = draw_order([one.candidate for one in self._roster if one.can("init")], run.config.seed)
                self._ask_next(run, now)
            return True
        if now >= run.wait_deadline:
            reason = f"only {here} of {wanted} learners came within {run.config.schedule.join_deadline_s:g} s"
            if aside := self.aside():
                reason += f"; put aside: {'; '.join(aside)}"
            self.end(run, "failed", reason, "failure", now)
            return True
        return False

    # ---- initializing
    def _leave_initializing(self, run: RunState, now: float) -> bool:
        if run.state != "initializing":
            return False
        task = run.initial[-1]
        if task.outcome is not None:
            run.model = task.outcome.model
            self._next_round(run, now)
            return True
        if task.state == "offered":
            if now < task.deadline and not self.pending(task, now).lost:
                return False
            self._offers.give_up(task, "void", "lost before it sent its initial weights", now)
        self._ask_next(run, now)
        return True

    def _ask_next(self, run: RunState, now: float) -> None:
        """Ask the next learner of the draw for initial weights."""
        while run.draw:
            member = self._roster.find(run.draw.pop(0).id)
            if member is not None and member.can("init"):
                deadline = now + run.config.schedule.round_deadline_s
                run.initial.append(self._offers.offer(run.id, 0, "init", member, None, now, deadline))
                return
        named = [f"{task.learner}: {task.reason}" for task in run.initial[:NAMED_FAILED]]
        tried = "; ".join(named + ["…"] * (len(run.initial) > NAMED_FAILED))
        reason = f"no learner gave initial weights ({tried or 'none of them does init tasks'})"
        self.end(run, "failed", reason, "failure", now)

    # ---- rounds
    def _next_round(self, run: RunState, now: float) -> None:
        """There is a model: evaluate model 0 if asked, wait for the operator if the run is driven by hand, go on."""
        if run.config.evaluation.initial and run.zeroth is None:
            assert run.model is not None
            cap = run.plan.factor_cap
            run.zeroth = RoundState(0, run.model, now, now, target=0, factor_cap=cap, model=run.model)
            run.open.append(run.zeroth)
            self._offer_evaluation(run, run.zeroth, [one for one in self._roster if one.can("evaluate")], now)
            run.state = "evaluating"
        elif run.config.advance == "manual" and not run.requested:
            run.state, run.hold = "waiting", "operator"
        else:
            self._begin_round(run, now)

    def _begin_round(self, run: RunState, now: float) -> None:
        assert run.model is not None
        if streams(run.plan.scheduler):
            self._streaming.begin(run, now)
            return
        run.history.follow(run.rounds)
        config, least = run.config, max(1, run.config.schedule.min_updates)
        here = _present(self.here(), least)
        candidates = in_order([run.history.of(member.candidate) for member in here])
        if len(candidates) < least:
            run.wait_for_learners(now)
            return
        target = target_count(len(candidates), config.selection.participation_ratio, config.schedule.min_updates)
        started = self._stopwatch()
        drawn = min(len(candidates), draw_count(target, config.selection.over_selection))
        fruitless = run.fruitless()
        fresh = [one for one in candidates if one.name not in fruitless]
        pool = fresh if len(fresh) >= drawn else candidates
        members = run.plan.selector.select(pool, drawn, config.seed, run.round + 1)
        spent_ms = round((self._stopwatch() - started) * 1000, 3)
        deadline = now + config.schedule.round_deadline_s
        wanted = min(target, len(members))
        one = RoundState(run.round + 1, run.model, now, deadline, wanted, spent_ms, run.plan.factor_cap)
        run.begin(one)
        names = [candidate.name for candidate in members]
        text = f"round {one.number}: {len(names)} learners train ({', '.join(names[:5])}{' …' if names[5:] else ''})"
        self._emit(run, now, "round-started", text, one.number, members=names)
        budget = _step_budgets(run, names)
        for candidate in members:
            member = self._roster.get(candidate.id)
            one.train[member.id] = task = self._offers.offer(
                run.id, one.number, "train", member, run.model, now, deadline, config.encoding
            )
            task.num_local_updates = budget.get(member.name)

    def _leave_round(self, run: RunState, now: float) -> bool:
        return any(
            (one.state == "training" and self._close_training(run, one, now))
            or (one.state == "evaluating" and self._close_evaluation(run, one, now))
            for one in list(run.open)
        )

    def _close_training(self, run: RunState, one: RoundState, now: float) -> bool:
        verdict = run.plan.scheduler.decide(self.view(run, one, now))
        if isinstance(verdict, Wait):
            return False
        if isinstance(verdict, Fail):
            one.closed_by = verdict.reason
            self._close_offers(one.train, f"the round closed: {verdict.reason}", now)
            one.learners = len(self._roster)
            self.fail_round(run, one, verdict.reason, now)
            return True
        one.closed_by = verdict.reason
        self._close_offers(one.train, f"the round closed: {verdict.reason}", now)
        one.state = run.state = "aggregating"
        one.learners = len(self._roster)
        if run.plan.algorithm.extras:
            reported = {task.learner_id for task in one.accepted}
            one.present = sorted(reported.union(member.id for member in self.here()))
        return True

    def _offer_evaluation(self, run: RunState, one: RoundState, members: list[Member], now: float) -> None:
        one.state, one.evaluating_since = "evaluating", now
        one.evaluation_deadline = now + run.config.schedule.round_deadline_s
        for member in sorted(members, key=lambda member: member.name):
            deadline, encoding = one.evaluation_deadline, run.config.encoding
            one.evaluate[member.id] = self._offers.offer(
                run.id, one.number, "evaluate", member, one.model, now, deadline, encoding
            )

    def _close_evaluation(self, run: RunState, one: RoundState, now: float) -> bool:
        """Close the round when all who can have evaluated; a lost learner is not waited for."""
        offered = [task for task in one.evaluate.values() if task.state == "offered"]
        waits = not all(self.pending(task, now).lost for task in offered)
        if now < one.evaluation_deadline and (waits or (one.asks_driver and one.driver_scores is None)):
            return False
        self._close_offers(one.evaluate, "the evaluation closed", now)
        one.state, one.completed_at = "closed", now
        run.open.remove(one)
        if one is run.zeroth:
            self._next_round(run, now)
            return True
        if one.evaluate or one.asks_driver:
            run.note_score(one)
        self._tell_closed(run, one, now)
        unreported = termination.unreported(run.config.termination, run.scores, run.reported)
        if unreported and len(run.scores) == 1:
            self._emit(run, now, "metric-unreported", unreported.reason, one.number)
        if unreported and unreported.final:
            self.end(run, "failed", unreported.reason, "failure", now)
        elif ending := termination.after_round(run.config.termination, run.made(1, one.number + 1), run.scores):
            self.end(run, "completed", ending.reason + _unevaluated(one), ending.signal, now)
        elif one is run.rounds[-1] and not streams(run.plan.scheduler):
            self._next_round(run, now)
        return True

    # ---- small steps
    def view(self, run: RunState, one: RoundState, now: float) -> RoundView:
        """A round as its scheduler sees it."""
        return one.view(now, run.config.schedule.min_updates, lambda task: self.pending(task, now))

    def pending(self, task: Assignment, now: float) -> Pending:
        """How its learner is doing."""
        member = self._roster.find(task.learner_id)
        lost = member is None or member.state == "lost"
        return Pending(task.learner, lost, now - member.heard_of(now) if member else 0.0)

    def _close_offers(self, tasks: Mapping[str, Assignment], reason: str, now: float) -> None:
        for task in tasks.values():
            if task.state == "offered":
                task.void_as = "round-closed"
                self._offers.give_up(task, "void", reason, now)
                member = self._roster.find(task.learner_id)
                if member is not None and task.fetched_at is None:
                    member.away = True
                    self._roster.changes.members.add(member.id)

    def _tell_closed(self, run: RunState, one: RoundState, now: float) -> None:
        shown = one.message(self._journal.iso)
        scores = ", ".join(f"{k} {v:.4f}" for k, v in shown.evaluation_metrics.combined.items() if v is not None)
        text = f"round {one.number} closed: {'no model' if one.failure else scores or 'not evaluated'}"
        self._emit(run, now, "round-closed", text, one.number, **shown.model_dump(mode="json"))

    def _emit(self, run: RunState, now: float, kind: str, text: str, number: int | None = None, /, **data: Any) -> None:
        self._roster.changes.runs.add(run.id)
        self._journal.emit(now, kind, text, run=run.id, round_number=number, data=data)


def _unevaluated(one: RoundState) -> str:
    """Of the last round, when nobody could evaluate its model: who could not, and why."""
    if not one.evaluate or any(task.outcome for task in one.evaluate.values()):
        return ""
    failed = [f"{task.learner}: {task.reason}" for task in one.evaluate.values()]
    named = failed[:NAMED_FAILED] + ["…"] * (len(failed) > NAMED_FAILED)
    return f"; nobody evaluated the last model ({'; '.join(named)})"


def _present(members: list[Member], least: int = 1) -> list[Member]:
    """Those of them that are not away; all of them when fewer than `least` would be left."""
    present = [member for member in members if not member.away]
    return present if len(present) >= least else members


def _step_budgets(run: RunState, members: Iterable[str]) -> dict[str, int]:
    """Steps of the next round's members, by name; those without one train for their epochs."""
    schedule = run.config.schedule
    if not isinstance(run.plan.scheduler, SemiSynchronous) or schedule.semi_sync_lambda is None:
        return {}
    reported = [{task.learner: task.outcome.metadata for task in one.accepted if task.outcome} for one in run.rounds]
    return budgets(reported, members, schedule.semi_sync_lambda, schedule.semi_sync_recompute_num_updates)
