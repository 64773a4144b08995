"""Tasks: offered to a learner until they are done, given up or void; each remembered to answer what comes late."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

from .. import messages as m
from ..config import Encoding
from ..errors import DifferentBody, Forbidden, RoundClosed, TaskVoid, UnknownTask
from ..failures import Reason
from ..weights import PLAIN
from .allowance import Allowance
from .journal import Journal
from .roster import Member, Roster
from .rounds import Assignment, ModelInfo, Outcome

AS_IT_IS = Encoding()


class Offers:
    """All tasks by id, and the open ones of each learner, oldest first. `woken` collects learners to be told."""

    def __init__(self, roster: Roster, journal: Journal, new_id: Callable[[], str]) -> None:
        self.woken: set[str] = set()
        self._roster = roster
        self._journal = journal
        self._new_id = new_id
        self._changes = roster.changes
        self._tasks: dict[str, Assignment] = {}
        self._open: dict[str, deque[Assignment]] = {}
        self._offered = 0

    def offer(
        self,
        run_id: str,
        number: int,
        kind: str,
        member: Member,
        model: ModelInfo | None,
        now: float,
        deadline: float,
        encoding: Encoding = AS_IT_IS,
    ) -> Assignment:
        """A new task for a member, in the run's encoding as far as the member can do it."""
        given = model.coded if model and model.coded and member.takes(encoding.down) else model
        up = encoding.up if member.takes(encoding.up) else PLAIN
        who = (member.id, member.name)
        self._offered += 1
        task = Assignment(
            self._new_id(), kind, *who, run_id, number, model, given, up, now, deadline, order=self._offered
        )
        self._tasks[task.id] = task
        self._note(task)
        self._open.setdefault(member.id, deque()).append(task)
        self.woken.add(member.id)
        self._emit(now, "task-offered", f"{member.name} is to {kind}", task)
        return task

    def first(self, learner_id: str) -> Assignment | None:
        """The oldest open task of a learner."""
        offers = self._open.get(learner_id)
        return offers[0] if offers else None

    def naming(self, learner_id: str, digest: str) -> Assignment | None:
        """An open task of the learner that names this model, in the form in which it was given, or this input."""
        return next((t for t in self._open.get(learner_id, ()) if t.names(digest)), None)

    def get(self, task_id: str, learner_id: str | None) -> Assignment:
        """The task; raises UnknownTask, or Forbidden when it is another's (`learner_id` None: an operator's view)."""
        task = self._tasks.get(task_id)
        if task is None:
            raise UnknownTask(f"there is no task {task_id!r}", id=task_id)
        if learner_id is not None and task.learner_id != learner_id:
            raise Forbidden("this task belongs to another learner")
        return task

    def accept(self, task: Assignment, outcome: Outcome, now: float) -> bool:
        """Take a result. False: this body was taken before; raises DifferentBody when another one was."""
        if task.state == "accepted":
            assert task.outcome is not None
            if task.outcome.fingerprint != outcome.fingerprint:
                raise DifferentBody(f"task {task.id} was answered before with another body", id=task.id)
            return False
        task.state, task.outcome, task.done_at = "accepted", outcome, now
        self._close(task)
        text = f"{task.learner} {'evaluated' if task.kind == 'evaluate' else 'sent its update'}"
        self._emit(now, "update-accepted", text, task, size=outcome.size, metrics=dict(outcome.metrics))
        return True

    def report(self, task: Assignment, member: Member, progress: m.Progress, now: float) -> None:
        """Its learner says how far it is."""
        member.progress = progress
        told = progress.model_dump(exclude_none=True)
        text = f"{member.name}: {', '.join(f'{key} {value:g}' for key, value in told.items())}"
        data = {"task": task.id, **told}
        self._journal.emit(
            now, "task-progress", text, run=task.run_id, round_number=task.round, learner=member.name, data=data
        )

    def give_up(self, task: Assignment, state: Literal["failed", "void"], reason: str, now: float) -> None:
        """The task will not be done: the learner failed, or nobody wants it any more."""
        task.state, task.reason, task.done_at = state, reason, now
        self._close(task)
        if state == "failed":
            self._emit(now, "task-failed", f"{task.learner} could not {task.kind}: {reason}", task, reason=reason)

    def fail(self, task: Assignment, reason: Reason, allowance: Allowance, now: float) -> None:
        """The learner failed, and says why."""
        task.traceback, first_lost = allowance.keep_traceback(task.learner_id, reason.traceback)
        self.give_up(task, "failed", reason.line, now)
        if first_lost:
            self.tell_shortened(task, allowance, now)

    def tell_shortened(self, task: Assignment, allowance: Allowance, now: float) -> None:
        """From now on less is kept of what the learner of a task tells."""
        self._emit(now, "result-shortened", allowance.used_up(task), task)

    def void_all(self, learner_id: str | None, run_id: str | None, reason: str, now: float) -> None:
        """Void the open tasks of a learner, or of a run."""
        queues = list(self._open.values()) if learner_id is None else [self._open.get(learner_id, deque())]
        for task in [task for queue in queues for task in queue if run_id in (None, task.run_id)]:
            self.give_up(task, "void", reason, now)

    def extend(self, by_s: float) -> list[str]:
        """The deadlines of all open tasks are that much later; returns the tasks' ids."""
        tasks = [task for queue in self._open.values() for task in queue]
        for task in tasks:
            task.deadline += by_s
        return [task.id for task in tasks]

    def note_download(self, learner_id: str, model: ModelInfo, size: int) -> None:
        """A member of a round is sent `size` bytes of the model of its task."""
        if task := self.naming(learner_id, model.digest):
            task.bytes_down += size

    def find(self, task_id: str) -> Assignment | None:
        """The task, while its run is remembered."""
        return self._tasks.get(task_id)

    def is_open(self, task_id: str) -> bool:
        """Whether a result of the task is still wanted."""
        task = self.find(task_id)
        return task is not None and task.state == "offered"

    def restore(self, tasks: Iterable[Assignment]) -> None:
        """Tasks of a run that was written down. Those of 0.1 have no order: they come as they are given."""
        for task in sorted(tasks, key=lambda task: task.order):
            self._tasks[task.id] = task
            self._offered = max(self._offered, task.order)
            if task.state == "offered":
                self._open.setdefault(task.learner_id, deque()).append(task)

    def forget(self, tasks: Iterable[Assignment]) -> None:
        """Drop tasks of a run that is no longer remembered."""
        for task in tasks:
            self._tasks.pop(task.id, None)

    def _note(self, task: Assignment) -> None:
        self._changes.tasks.add(task.id)
        self._changes.runs.add(task.run_id)

    def _close(self, task: Assignment) -> None:
        self._note(task)
        queue = self._open.get(task.learner_id)
        if queue and task in queue:
            queue.remove(task)
            if not queue:
                del self._open[task.learner_id]
        if member := self._roster.find(task.learner_id):
            member.progress = None
        self.woken.add(task.learner_id)

    def _emit(self, now: float, kind: str, text: str, task: Assignment, **data: object) -> None:
        self._journal.emit(
            now,
            kind,
            text,
            run=task.run_id,
            round_number=task.round,
            learner=task.learner,
            data={"task": task.id, "task_kind": task.kind, **data},
        )


def refuse_if_closed(task: Assignment, current_round: int) -> None:
    """Raise RoundClosed or TaskVoid when the result of a task is no longer wanted; an accepted one may be replayed."""
    if task.state in ("offered", "accepted"):
        return
    if task.void_as == "stale":
        raise RoundClosed(f"this result is too late: {task.reason}", round=task.round, current_round=current_round)
    if task.void_as == "round-closed":
        raise RoundClosed(
            f"round {task.round} closed without this result; the run is at round {current_round}",
            round=task.round,
            current_round=current_round,
        )
    raise TaskVoid(f"task {task.id} is no longer wanted: {task.reason}", id=task.id)
