"""The federation: synchronous and pure. Time comes in as an argument, randomness as seeds and ids.

Commands (`join`, `accept`, `start`, …) change the state and let the active run move on as far as it can (stages.py);
what happened is left in `journal` (events) and `offers.woken` (learners whose offer changed) for the caller to collect.
The only work done elsewhere is the aggregation: `due` hands out a frozen snapshot, `aggregated` takes the new model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import messages as m
from ..aggregation import State
from ..config import canonical, check_plain, resolve
from ..errors import FederationOver, InvalidRequest, NotManual, RunActive, TaskVoid
from ..failures import split
from ..scheduling import streams
from ..transforms import first_bounds, next_bounds
from . import health
from .allowance import TOLD_BYTES, Allowance
from .changes import Changes
from .job import Aggregation, Share
from .journal import Journal
from .manifest import manifest_of
from .offers import Offers, refuse_if_closed
from .plan import initial_model, plan, told_whole
from .representation import learner_message, task_message, waiting_for
from .roster import Member, Roster
from .rounds import NO_STATES, Assignment, ModelInfo, Outcome, RoundState, States
from .run import RunState
from .runs import Runs, Uploaded
from .shares import aggregation_of, take_newest, tell_capped
from .stages import Stages


class Federation:
    """Learners, runs and tasks of one controller."""

    def __init__(
        self,
        defaults: Mapping[str, Any],
        epoch: float,
        new_id: Callable[[], str],
        stopwatch: Callable[[], float] = lambda: 0.0,
        lineage_length: int = 0,
        told_bytes: int = TOLD_BYTES,
    ) -> None:
        """`defaults` is the sparse configuration of runs; `epoch` the wall-clock time at which `now` was 0;
        `stopwatch` gives seconds by which the state machine's own work is timed; `lineage_length` is the model store's;
        `told_bytes` is what a learner may tell in a run (allowance.py).
        """
        self.defaults = defaults
        self.changes = Changes()
        self.roster = Roster(self.changes)
        self.journal = Journal(epoch)
        self.offers = Offers(self.roster, self.journal, new_id)
        self.stages = Stages(self.roster, self.offers, self.journal, self._ended, stopwatch)
        self.runs = Runs(self.changes)
        self.uploaded = Uploaded(self.changes)
        self.over = False
        self._new_id = new_id
        self.lineage_length = lineage_length
        self._told_bytes = told_bytes
        self.released: list[tuple[str, str]] = []  # learner ids and keys of postponed updates that are so no more
        self._idle_lease_s = resolve({}, defaults).schedule.lease_s

    @property
    def active(self) -> RunState | None:
        """The run that has not ended."""
        return self.runs.active

    @property
    def lease_s(self) -> float:
        """How long a silent learner counts as here."""
        return self.active.config.schedule.lease_s if self.active else self._idle_lease_s

    # ---- learners
    def join(
        self,
        request: m.JoinRequest,
        token_hash: bytes,
        now: float,
        webhook_secret: str | None = None,
        key_hash: str | None = None,
    ) -> Member:
        """Enrol a learner; raises NameTaken while another has the name. A lost one may be replaced (Roster.yields).

        The same `key_hash` again is the same learner, who has not used its token: it gets this one.
        """
        self._refuse_when_over()
        self.tick(now)
        if member := self.roster.enrolled_with(key_hash):
            self.roster.give_token(member, token_hash)
            return self.rejoin(member.id, request, now, webhook_secret)
        learner_id = self._new_id()
        name = request.name or f"learner-{learner_id[:8]}"
        holder = self.roster.holder(name)
        if holder is not None and self.roster.yields(holder):
            self._remove(holder, now)
        member = Member(
            learner_id, name, token_hash, request, now, now, webhook_secret=webhook_secret, key_hash=key_hash
        )
        self.roster.enrol(member, self.lease_s)
        self.journal.emit(now, "learner-joined", f"{name} joined", learner=name)
        self._move_on(now)
        return member

    def rejoin(self, learner_id: str, request: m.JoinRequest, now: float, webhook_secret: str | None = None) -> Member:
        """A known learner reports back, perhaps restarted: same id and name, the rest of its request renewed. It takes
        the `webhook_secret` only when it has none."""
        self._refuse_when_over()
        member = self._seen(learner_id, now)
        self._let_back(member, "it reported back", now)
        member.request = request
        self.changes.members.add(member.id)
        member.webhook_secret = member.webhook_secret or webhook_secret
        self._move_on(now)
        return member

    def readmit(self, learner_id: str, now: float) -> Member:
        """An operator lets a learner back that was put aside; of any other, earlier refusals are forgotten."""
        member = self.roster.get(learner_id)
        self._let_back(member, "an operator let it back", now)
        self._move_on(now)
        return member

    def leave(self, learner_id: str, now: float) -> None:
        """A learner leaves for good; its open tasks are void."""
        self._remove(self.roster.get(learner_id), now)
        self._move_on(now)

    def heartbeat(self, learner_id: str, beat: m.Heartbeat, now: float) -> None:
        """Renew the lease; raises TaskVoid or RoundClosed when the task that it works on is no longer wanted."""
        member = self._seen(learner_id, now)
        if beat.task_id is None:
            return
        task = self.check(beat.task_id, learner_id)
        if beat.progress is not None and task.state == "offered":
            self.offers.report(task, member, beat.progress, now)

    def waits(self, learner_id: str, polls: int) -> None:
        """A learner's poll begins (+1) or has ended (-1) to wait; while one waits the learner is here."""
        if member := self.roster.find(learner_id):
            member.waiting += polls

    def renew(self, learner_id: str, now: float) -> None:
        """A learner that is (or was until now) connected is here."""
        if self.roster.find(learner_id) is not None:
            self._seen(learner_id, now)

    def next_task(self, learner_id: str, now: float) -> Assignment | None:
        """The oldest open task of the learner. It is offered again until it is done."""
        self._refuse_when_over()
        member, task = self._seen(learner_id, now), self.offers.first(learner_id)
        if task is not None and task.fetched_at is None:
            task.fetched_at = now
        if member.away:
            member.away = False
            self.changes.members.add(member.id)
        return task

    # ---- results of tasks
    def check(self, task_id: str, learner_id: str | None) -> Assignment:
        """The task, if a result for it may come from this learner (None: from anyone). An accepted one may be replayed.

        Raises UnknownTask, Forbidden, RoundClosed, TaskVoid.
        """
        task = self.offers.get(task_id, learner_id)
        refuse_if_closed(task, self.runs[task.run_id].round)
        return task

    def accept(self, task_id: str, outcome: Outcome, now: float) -> tuple[m.Receipt, bool]:
        """Take a checked result. Returns its receipt, and whether it was taken now (False: a replay, in any phase)."""
        task = self.check(task_id, None)
        kept, shortened, allowance = outcome, False, self.runs[task.run_id].allowance
        if task.state == "offered":
            kept, shortened = allowance.keep(task.learner_id, outcome)
        taken = self.offers.accept(task, kept, now)
        if taken:
            if shortened:
                self.offers.tell_shortened(task, allowance, now)
            if member := self.roster.find(task.learner_id):
                self._seen(member.id, now)
                if task.kind == "train" and health.clear(member):
                    self.changes.members.add(member.id)
            self._move_on(now)
        return task.receipt, taken

    def refuse(self, task_id: str, why: str, now: float) -> None:
        """The update of a task was found to be invalid. The task stays open, unless that puts its learner aside."""
        task = self.offers.get(task_id, None)
        member = self.roster.find(task.learner_id)
        if member is None or task.kind != "train" or task.state != "offered":
            return
        task.fetched_at = now if task.fetched_at is None else task.fetched_at
        if not health.note_refused(member, task_id, why):
            return
        self.changes.members.add(member.id)
        health.tell_refused(self.journal, member, task, why, now)
        if member.aside is not None:
            self.offers.void_all(member.id, None, f"the learner is put aside: {member.aside}", now)
            self._move_on(now)

    def fail(self, task_id: str, learner_id: str | None, error: str, now: float, traceback: str | None = None) -> None:
        """A learner could not do a task. Told twice, or after its result: nothing changes."""
        task = self.offers.get(task_id, learner_id)
        if task.state == "offered":
            reason = split(error, traceback)
            self.offers.fail(task, reason, self.runs[task.run_id].allowance, now)
            if task.kind == "train" and (member := self.roster.find(task.learner_id)):
                health.note_failed(member, reason.line)
                self.changes.members.add(member.id)
            self._move_on(now)
        elif task.state == "void":
            self.check(task_id, learner_id)

    # ---- runs
    def start(
        self,
        given: Mapping[str, Any],
        now: float,
        key: str | None = None,
        held: Callable[[str], ModelInfo | None] = lambda digest: None,
    ) -> RunState:
        """Start a run with a sparse configuration; `held` knows the models that were put before.

        Raises InvalidConfig, RunActive, UnknownModel; the same `key` and configuration again give the same run.
        """
        self._refuse_when_over()
        check_plain(given)
        fingerprint = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
        if started := self.runs.started_with(key, fingerprint):
            return started
        if self.active:
            raise RunActive(f"run {self.active.id} is {self.active.state}: stop it first", run=self.active.id)
        parts = plan(config := resolve(self.defaults, given), self.lineage_length)
        config = told_whole(config, parts)
        model = initial_model(config, held)
        text = canonical(config.model_dump(mode="json"))
        run = RunState(self._new_id(), config, text, parts, now, model=model, bounds=[first_bounds(parts.transforms)])
        run.wait_for_learners(now)
        self.resume(run, key, fingerprint)
        self.journal.emit(now, "run-started", f"run {run.id} started", run=run.id, data={"name": config.name})
        self.tick(now)
        return run

    def stop(self, run_id: str, reason: str, now: float) -> RunState:
        """End a run now; what it made so far is kept. Stopping an ended run changes nothing."""
        run = self.find_run(run_id)
        if not run.over:
            self.stages.end(run, "stopped", reason, "stop", now)
        return run

    def next_round(self, run_id: str, number: int | None, now: float) -> RunState:
        """Start the next round of a run that is advanced by hand.

        With `number` the call may be repeated: it asks for that round, and changes nothing once it has begun. While a
        round is going on nothing changes. Raises NotManual, TaskVoid when the run has ended, InvalidRequest for a
        round that is further ahead than the next one.
        """
        run = self.find_run(run_id)
        if run.config.advance != "manual":
            raise NotManual('the rounds of this run start by themselves; post it with advance = "manual"', run=run.id)
        if run.over:
            raise TaskVoid(f"run {run.id} has ended: {run.reason}", id=run.id)
        if number is not None and number > run.round + 1:
            raise InvalidRequest(f"the next round is {run.round + 1}", expected=run.round + 1, got=number)
        begun = number is not None and number <= run.round
        if run.state in ("waiting", "initializing") and not begun:
            run.requested = True
            self.changes.runs.add(run.id)
            if run.hold == "operator":
                run.wait_for_learners(now)
            self._move_on(now)
        return run

    def take_scores(self, run_id: str, number: int, scores: m.Metrics, now: float) -> RoundState:
        """See Stages.take_scores."""
        run = self.find_run(run_id)
        one = self.stages.take_scores(run, number, scores, now)
        self._move_on(now)
        return one

    def find_run(self, run_id: str) -> RunState:
        """See Runs.named."""
        return self.runs.named(run_id)

    def shut_down(self, now: float) -> None:
        """End the federation: the active run stops, polls answer FederationOver."""
        if self.active:
            self.stages.end(self.active, "stopped", "the controller is shutting down", "stop", now)
        self.over = True
        self.offers.woken.update(member.id for member in self.roster)
        self.journal.emit(now, "federation-over", "the controller is shutting down")

    def tick(self, now: float) -> None:
        """Let leases and deadlines take effect."""
        self._expire(now)
        self._move_on(now)

    def extend(self, by_s: float, now: float, write: bool) -> None:
        """Nobody could report for so long, up to now: leases and deadlines that wait for learners are that much later.

        With `write` that is a change to be written down. `execution_cutoff_time_mins` goes on: it is a promise about
        the time of day.
        """
        if by_s < self.lease_s:
            self.roster.extend(by_s, now)
        else:  # calls have failed meanwhile, and are repeated with pauses that grew
            self.roster.renew(now)
        moved = self.offers.extend(by_s)
        if run := self.active:
            run.extend(by_s)
            if write:
                self.changes.tasks.update(moved)
                self.changes.runs.add(run.id)

    def next_deadline(self) -> float | None:
        """When `tick` should be called next at the latest."""
        times = [self.roster.next_lapse(self.lease_s)]
        if run := self.active:
            times += run.deadlines()
        return min((time for time in times if time is not None), default=None)

    def due(self) -> Aggregation | None:
        """An aggregation that is due and has not been handed out."""
        run = self.active
        one = next((one for one in run.open if one.state == "aggregating" and not one.taken), None) if run else None
        if run is None or one is None:
            return None
        one.taken = True
        return aggregation_of(run, one)

    def postpones(self, task: Assignment) -> bool:
        """Whether an accepted update becomes its learner's newest only when it is in a community model."""
        run = self.runs.get(task.run_id)
        return run is not None and not run.over and streams(run.plan.scheduler)

    def awaits_update_of(self, learner_id: str) -> bool:
        """Whether an update of this learner was taken that is not yet aggregated."""
        if self.active is None:
            return False
        waiting = [task for one in self.active.open if one.model is None for task in one.accepted]
        return any(task.learner_id == learner_id for task in (*waiting, *self.active.stream.arrived))

    def aggregated(
        self,
        job: Aggregation,
        model: ModelInfo,
        states: tuple[State | None, State | None],
        spent_s: float,
        now: float,
        stored: States = NO_STATES,
    ) -> None:
        """The new community model of a round, and under which keys the `states` are stored; ignored when the run has
        ended meanwhile."""
        run = self.runs.get(job.run_id)
        if run is None or run.over:
            return
        one = run.rounds[job.round - 1]
        one.model, one.aggregation_ms = model, round(spent_s * 1000, 3)
        if streams(run.plan.scheduler):
            take_newest(run, one)
        self._release(one.accepted, run)
        run.previous, run.model = run.model, model
        run.aggregator_state, run.optimizer_state = states
        one.bounds = next_bounds(run.plan.transforms, run.bounds[-1], [share.transforms for share in job.shares])
        run.bounds.append(one.bounds)
        one.states = stored
        run.take_shift(one, job.shift, self.runs.kept_rounds)
        self.changes.manifests.append(manifest_of(job, run, model, stored, self.lineage_length))
        text = f"round {one.number}: {len(job.shares)} updates make model {model.digest[7:19]}"
        data = {"model": model.digest}
        self.changes.runs.add(run.id)
        tell_capped(self.journal, run, one, now)
        self.journal.emit(now, "round-aggregated", text, run=run.id, round_number=one.number, data=data)
        self.stages.evaluate(run, one, now)
        self._move_on(now)

    def round_failed(self, job: Aggregation, error: str, now: float) -> None:
        """The updates of a round make no model: the model and the states stay, and the run goes on with the next round,
        unless so many have failed in a row. Ignored when the run has ended meanwhile."""
        run = self.runs.get(job.run_id)
        if run is None or run.over:
            return
        one = run.rounds[job.round - 1]
        run.stream.left = run.stream.left or one.anew  # the rule did not begin anew
        self._release(one.accepted, run)
        self.stages.fail_round(run, one, error, now)
        self._move_on(now)

    def begin_anew(self, job: Aggregation) -> None:
        """The rule's state does not do: the aggregation is handed out again, without it and with everybody's newest."""
        run = self.runs.get(job.run_id)
        if run is not None and not run.over:
            run.rounds[job.round - 1].taken, run.stream.left = False, True

    def aggregation_failed(self, job: Aggregation, error: str, now: float) -> None:
        """An aggregation could not be carried out: the run fails, saying why."""
        run = self.runs.get(job.run_id)
        if run is not None and not run.over:
            self.stages.end(run, "failed", f"round {job.round}: {error}", "failure", now)

    # ---- what is shown
    def learner_message(self, member: Member, now: float) -> m.Learner:
        """A learner as the contract shows it."""
        return learner_message(self.journal, self.offers, member, now)

    def task_message(self, task: Assignment, now: float) -> m.Task:
        """A task as the contract shows it."""
        return task_message(self.runs[task.run_id], task, self.lease_s, now)

    def run_message(self, run: RunState, now: float) -> m.Run:
        """A run as the contract shows it."""
        return run.message(self.journal.iso, waiting_for(self.stages, run, now))

    def results(self, run: RunState, now: float) -> m.Results:
        """Everything about a run; before its end the closed rounds."""
        here = run.participants.values() if run.over else self._here(now)
        return run.results(self.journal.iso, waiting_for(self.stages, run, now), here)

    def kept_models(self) -> set[str]:
        """Digests of the models that must be kept."""
        return set(self.uploaded) | self.runs.kept_models()

    def resume(self, run: RunState, key: str | None, fingerprint: str) -> None:
        """A new run begins, or one that was written down goes on; the oldest may be forgotten for it."""
        run.allowance = Allowance(self._told_bytes, run.config.termination.evaluation_metric, run.tasks())
        for old in self.runs.add(run, key, fingerprint):
            self.offers.forget(old.tasks())
        self.offers.restore(run.tasks())

    # ---- small steps
    def _move_on(self, now: float) -> None:
        if self.active:
            self.stages.move_on(self.active, now)

    def _release(self, tasks: Iterable[Assignment], run: RunState) -> None:
        if streams(run.plan.scheduler):
            for task in tasks:
                self.released += [(task.learner_id, task.outcome.blob)] if task.outcome and task.outcome.blob else []
                if self.roster.find(task.learner_id) is None:
                    run.forget(task.learner_id)  # it left before its update was in a model

    def _ended(self, run: RunState, now: float) -> None:
        undone = [one for one in run.rounds if one.model is None and one.failure is None]
        self._release([task for one in undone for task in one.accepted], run)
        self._release(run.stream.arrived, run)
        run.participants = {one.id: one for one in self._here(now)}
        self.changes.participants |= {(run.id, key) for key in run.participants}
        self.runs.active = None
        self._expire(now)  # from now on the controller's own lease counts

    def _here(self, now: float) -> list[m.Learner]:
        return [self.learner_message(one, now) for one in self.roster]

    def _remove(self, member: Member, now: float) -> None:
        self.offers.void_all(member.id, None, f"{member.name} left", now)
        self.roster.remove(member.id)
        if run := self.active:
            self.changes.runs.add(run.id)
            run.forget(member.id)
            run.departed[member.id] = self.learner_message(member, now).model_copy(update={"state": "left"})
            self.changes.participants |= {(run.id, member.id), *((run.id, key) for key in run.forget_departed())}
        self.journal.emit(now, "learner-left", f"{member.name} left", learner=member.name, data={"id": member.id})

    def _seen(self, learner_id: str, now: float) -> Member:
        member = self.roster.get(learner_id)
        member.last_seen = max(member.last_seen, now)
        if member.state == "lost":
            member.state = "active"
            self.changes.members.add(member.id)
            self.journal.emit(now, "learner-returned", f"{member.name} is back", learner=member.name)
            self._move_on(now)
        return member

    def _let_back(self, member: Member, why: str, now: float) -> None:
        was_aside = member.aside is not None
        if health.clear(member):
            self.changes.members.add(member.id)
        if was_aside:
            self.journal.emit(now, "learner-readmitted", f"{member.name} gets tasks again: {why}", learner=member.name)

    def _expire(self, now: float) -> None:
        for member in self.roster.lapsed(now, self.lease_s):
            text = f"{member.name} is lost: not heard of for {now - member.last_seen:.0f} s"
            self.journal.emit(now, "learner-lost", text, learner=member.name)

    def _refuse_when_over(self) -> None:
        if self.over:
            raise FederationOver("the controller is shutting down: agents may exit")


__all__ = ["Aggregation", "Federation", "Share"]
