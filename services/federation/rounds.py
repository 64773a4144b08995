"""Tasks given to learners, and the rounds that they belong to: state and its view as messages, no decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from .. import messages as m
from ..scheduling import Pending, RoundView
from ..weights import PLAIN
from .scores import Score, combine, evaluation_score

Iso = Callable[[float], str]
States = tuple[str | None, str | None]  # keys under which a rule's and a server optimizer's state are stored
NO_STATES: States = (None, None)


@dataclass(frozen=True)
class ModelInfo:
    """A community model: digest and size of its document, and of the smaller one that stands for it in a run."""

    digest: str
    size: int  # bytes
    coded: ModelInfo | None = None  # see RunConfig.encoding.down
    inputs: Mapping[str, ModelInfo] = field(default_factory=dict, hash=False)  # given with it (algorithms.py)


@dataclass(frozen=True)
class Outcome:
    """A checked result, as the state machine needs it."""

    fingerprint: str  # of the body as it was sent
    size: int  # bytes of that body
    metrics: m.Metrics = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    factor: float | None = None  # train: the scaling factor
    blob: str | None = None  # train: key of the update in the model store
    model: ModelInfo | None = None  # init: the model made of it
    transforms: tuple[m.Transformed, ...] = ()  # train: what the run's transforms did to it
    stored: str = ""  # train: fingerprint of what is stored, when that is not the body


@dataclass
class Assignment:
    """A task, as the federation keeps it."""

    id: str
    kind: str
    learner_id: str
    learner: str
    run_id: str
    round: int
    model: ModelInfo | None
    given: ModelInfo | None  # the model, or what stands for it
    up: str  # encoding in which its update may be sent
    offered_at: float
    deadline: float
    state: Literal["offered", "accepted", "failed", "void"] = "offered"
    reason: str | None = None  # one line
    traceback: str | None = None  # of its failure, as far as its learner may tell more
    void_as: Literal["round-closed", "stale", "task-void"] = "task-void"
    num_local_updates: int | None = None  # its step budget
    bytes_down: int = 0  # of its model, as often as it was sent
    fetched_at: float | None = None
    done_at: float | None = None
    outcome: Outcome | None = None
    order: int = 0  # among all tasks that were offered: a learner does its oldest first

    @property
    def inputs(self) -> Mapping[str, ModelInfo]:
        """Documents that it names beside the model. Its update answers each by extra tensors of that name and form."""
        return self.model.inputs if self.kind == "train" and self.model else {}

    def names(self, digest: str) -> bool:
        """Whether this is the digest of what it gives: its model, in the form in which it was given, or an input."""
        given = (self.given, *self.inputs.values()) if self.given else ()
        return any(one.digest == digest for one in given)

    @property
    def may_code(self) -> bool:
        """Whether its update may come in another form than plain tensors."""
        return self.kind == "train" and (self.up != PLAIN or self.given != self.model)

    @property
    def receipt(self) -> m.Receipt:
        """The receipt of its accepted result."""
        assert self.outcome is not None
        return m.Receipt(
            task_id=self.id,
            kind=self.kind,
            run_id=self.run_id,
            round=self.round,
            learner=self.learner,
            size=self.outcome.size,
        )

    def record(self) -> m.TaskRecord:
        """This task as the results list it."""
        done = self.outcome
        return m.TaskRecord(
            id=self.id,
            kind=self.kind,
            round=self.round,
            learner=self.learner,
            state=self.state,
            reason=self.reason,
            traceback=self.traceback,
            factor=done.factor if done else None,
            metadata=dict(done.metadata) if done else {},
            transforms=list(done.transforms) if done else [],
            duration_ms=milliseconds(self.offered_at, self.done_at if done else None),
        )


@dataclass
class RoundState:
    """One round. `train` and `evaluate` hold a task per member, by learner id, in the order of their names.

    Of an asynchronous run it is one community model: `train` holds the tasks whose updates it is made of, by task id.
    """

    number: int
    parent: ModelInfo
    started_at: float
    deadline: float
    target: int  # updates wanted
    selection_ms: float = 0.0
    factor_cap: float | None = None  # see RunConfig.schedule; None: factors count as they are
    train: dict[str, Assignment] = field(default_factory=dict)
    evaluate: dict[str, Assignment] = field(default_factory=dict)
    state: Literal["training", "aggregating", "evaluating", "closed"] = "training"
    taken: bool = False  # the runtime has the aggregation in hand
    learners: int = 0  # known to the federation when its updates were complete
    present: list[str] = field(default_factory=list)  # ids of learners that could train then; see controls.py
    capped: dict[str, m.Capped] = field(default_factory=dict)  # by learner: factors that count as less than they are
    model: ModelInfo | None = None
    closed_by: str | None = None
    failure: str | None = None  # why its updates made no model
    aggregation_ms: float | None = None
    evaluating_since: float | None = None
    evaluation_deadline: float = 0.0
    driver_scores: m.Metrics | None = None  # of its model, where the driver is who evaluates
    asks_driver: bool = False
    completed_at: float | None = None
    bounds: tuple[float, ...] = ()  # of the run's transforms, after its aggregation
    states: States = NO_STATES  # after its aggregation
    anew: bool = False  # of an asynchronous run: the rule begins without its state, a learner left that was in it

    @property
    def accepted(self) -> list[Assignment]:
        """Accepted updates, in the order of the learners' names."""
        return [task for task in self.train.values() if task.state == "accepted"]

    @property
    def evaluation(self) -> m.CombinedMetrics:
        """Scores of the round's model so far."""
        if self.driver_scores is not None:
            return m.CombinedMetrics(combined=self.driver_scores)
        done = [task for task in self.evaluate.values() if task.state == "accepted"]
        scores = [evaluation_score(t.learner, o.metrics, o.metadata) for t in done if (o := t.outcome)]
        return combine(scores, self.factor_cap)

    def counts(self, learner: str, factor: float) -> float:
        """What a scaling factor of a learner counts in this round."""
        return min(factor, self.capped[learner].counts) if learner in self.capped else factor

    @property
    def bytes(self) -> m.Bytes:
        """Weights that moved so far, in bytes: models to its members, updates from them."""
        return m.Bytes(
            down=sum(task.bytes_down for task in (*self.train.values(), *self.evaluate.values())),
            up=sum(task.outcome.size for task in self.accepted if task.outcome),
        )

    def view(self, now: float, min_updates: int, pending: Callable[[Assignment], Pending]) -> RoundView:
        """This round as a scheduler sees it."""
        tasks = self.train.values()
        return RoundView(
            reported=[task.learner for task in tasks if task.state == "accepted"],
            pending=_Pending([task for task in tasks if task.state == "offered"], pending),
            failed={t.learner: t.reason or t.state for t in tasks if t.state in ("failed", "void")},
            target=self.target,
            min_updates=min_updates,
            deadline_in_s=self.deadline - now,
        )

    def message(self, iso: Iso) -> m.Round:
        """This round as the contract shows it."""
        updates = [
            Score(task.learner, done.metrics, None if done.factor is None else self.counts(task.learner, done.factor))
            for task in self.accepted
            if (done := task.outcome)
        ]
        return m.Round(
            round=self.number,
            state=self.state,
            model=self.model.digest if self.model else None,
            parent=self.parent.digest,
            selected=[task.learner for task in self.train.values()],
            completed=[task.learner for task in self.accepted],
            failed={t.learner: t.reason or t.state for t in self.train.values() if t.state in ("failed", "void")},
            failure=self.failure,
            capped=self.capped,
            closed_by=self.closed_by,
            started_at=iso(self.started_at),
            completed_at=iso(self.completed_at) if self.completed_at is not None else None,
            train_metrics=combine(updates),
            evaluation_metrics=self.evaluation,
            timings_ms=self._timings(),
            bytes=self.bytes,
        )

    def _timings(self) -> m.Timings:
        train, evaluate = list(self.train.values()), list(self.evaluate.values())
        done = self.evaluating_since is not None and self.state == "closed"
        replies = [task.done_at for task in evaluate if task.state == "accepted"]
        last_reply = _latest(replies)
        end = last_reply if last_reply is not None else self.evaluating_since
        return m.Timings(
            train_dispatch=milliseconds(self.started_at, _latest([task.fetched_at for task in train])),
            train_round=milliseconds(self.started_at, _latest([task.done_at for task in self.accepted])),
            selection=self.selection_ms,
            aggregation=self.aggregation_ms,
            evaluation_dispatch=milliseconds(self.evaluating_since, _latest([task.fetched_at for task in evaluate])),
            evaluation_round=milliseconds(self.evaluating_since, last_reply) if done else None,
            federation_round=milliseconds(self.started_at, end) if done else None,
        )


def milliseconds(start: float | None, end: float | None) -> float | None:
    """From `start` to `end`, both in seconds; None while either has not happened."""
    return None if start is None or end is None else round((end - start) * 1000.0, 3)


def _latest(times: list[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return max(known, default=None)


class _Pending(Sequence[Pending]):
    """Members that have not reported; how one is doing is looked up when it is asked for."""

    def __init__(self, tasks: Sequence[Assignment], look: Callable[[Assignment], Pending]) -> None:
        self._tasks = tasks
        self._look = look

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> Pending: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pending]: ...
    def __getitem__(self, index: int | slice) -> Pending | list[Pending]:
        if isinstance(index, slice):
            return [self._look(task) for task in self._tasks[index]]
        return self._look(self._tasks[index])
