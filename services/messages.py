"""What crosses a process as JSON: the shapes of the HTTP contract, with the descriptions that `/docs` shows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .config import RunConfig
from .failures import TRACEBACK

ID_PATTERN = r"^[0-9A-Za-z_-]{1,64}$"
NAME_PATTERN = r"^[^\x00-\x1f\x7f/\\]{1,64}$"

Id = Annotated[str, Field(pattern=ID_PATTERN, description="opaque")]
Digest = Annotated[str, Field(pattern=r"^sha256-[0-9a-f]{64}$", description="sha256 of the document's bytes")]
Word = Annotated[str, Field(max_length=1000)]
Scalars = dict[str, bool | int | float | str | None]
Metrics = dict[str, float | None]
Kind = Annotated[str, Field(pattern=ID_PATTERN, description="`init`, `train` or `evaluate`; more may come")]
KINDS = ("init", "train", "evaluate")
TERMINAL = ("completed", "stopped", "failed")


class Message(BaseModel):
    """Base of what this side sends; unknown keys of a newer peer are ignored when read."""

    model_config = ConfigDict(frozen=True)


class Question(BaseModel):
    """Base of what a client sends; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class JoinRequest(Question):
    """A learner introduces itself."""

    name: str | None = Field(None, pattern=NAME_PATTERN, description="unique among live learners; default: made up")
    num_training_examples: int | None = Field(None, ge=0, le=2**53, description="rows that this learner holds")
    callback_url: str | None = Field(None, max_length=2048, description="POSTed with a signed 'poll now' (webhook)")
    labels: dict[Word, Word] = Field(default_factory=dict, max_length=64, description="free, for selection and display")
    kinds: list[Kind] = Field(
        default_factory=lambda: list(KINDS), max_length=64, description="task kinds that it can do"
    )
    encodings: list[Word] = Field(
        default_factory=lambda: ["none"], max_length=64, description="forms of tensors that it can read and write"
    )


class Progress(Question):
    """How far a training is, for the live view."""

    epoch: int | None = Field(None, ge=0, le=2**53)
    batch: int | None = Field(None, ge=0, le=2**53)
    loss: float | None = None


class Heartbeat(Question):
    """A learner is alive; with a task it also asks whether that task is still wanted."""

    task_id: Id | None = None
    progress: Progress | None = None


class Failure(Question):
    """A learner could not do a task."""

    error: str = Field(
        max_length=20000,
        description="one line: the error's type, the first line of its message, and where the learner's code called it;"
        " or `unsupported-task`. Of several lines the one with the message is taken, and all are the traceback",
    )
    traceback: str | None = Field(None, max_length=TRACEBACK, description="shown to operators in the run's results")


class EvaluationResult(Question):
    """Result of an `evaluate` task. A metric is a finite number or null."""

    metrics: dict[str, Annotated[float, Field(strict=True)] | None] = Field(default_factory=dict, max_length=1000)
    metadata: Scalars = Field(default_factory=dict, max_length=1000)


class StopRequest(Question):
    """Ends a run."""

    reason: str = Field("stopped by an operator", max_length=2000)


class RoundRequest(Question):
    """Starts a round of a run that is advanced by hand."""

    round: int | None = Field(
        None, ge=1, description="the number of the round that is wanted; makes the call repeatable"
    )


class Learner(Message):
    """A learner as the controller sees it. `active`: heard of within its lease; `lost`: silent, may return."""

    id: Id
    name: str
    state: Literal["active", "lost", "left"]
    health: Literal["ok", "failing", "aside"] = Field(
        "ok",
        description="`failing`: its newest updates were refused; `aside`: so in three rounds in a row, it gets no tasks"
        " until an operator readmits it or it reports back after a restart",
    )
    health_reason: str | None = Field(None, description="why it is put aside")
    token: str | None = Field(None, description="its bearer token, shown once, when it enrols")
    webhook_secret: str | None = Field(None, description="signs its webhooks (Standard Webhooks), shown once")
    num_training_examples: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    kinds: list[str] = Field(default_factory=list)
    joined_at: str
    last_seen: str = Field(description="ISO 8601, UTC")
    last_seen_s: float = Field(description="seconds ago")
    task: str | None = Field(None, description="id of the task that it is offered")
    progress: Progress | None = None


class Reference(Message):
    """A weights document elsewhere: `url` is relative to the request that brought it."""

    digest: Digest
    url: str
    size: int = Field(description="bytes")


class ResultTarget(Message):
    """Where the result of a task goes."""

    url: str = Field(
        description="relative to the request that brought it: PUT weights or, where it ends in `/scores`, scores there"
    )


class UpdateEncoding(Message):
    """The form in which an update may be sent. Any of its tensors may be sent plain all the same."""

    up: str = Field(description="`none`, `bf16`, `int8` or `topk`, of the difference to the model as it was given")
    topk_ratio: float | None = Field(None, description="topk: share of each tensor's elements to send")


class Task(Message):
    """One piece of work for one learner. Offered until it is done; times are relative."""

    id: Id
    kind: Kind
    run_id: Id
    round: int
    model: Reference | None = Field(description="the model to train or evaluate; null for `init`")
    inputs: dict[str, Reference] = Field(default_factory=dict, description="beside the model: see `algorithm`")
    result: ResultTarget
    config: dict[str, Any] = Field(
        description="the run's `train` or `evaluate` parameters, `round`, and a `seed` for the learner's draws"
    )
    encoding: UpdateEncoding | None = Field(None, description="how to send the update; null: plain tensors")
    expires_in_s: float = Field(description="after this the result is no longer wanted")
    heartbeat_s: float = Field(description="send a heartbeat at least this often while working")


class Receipt(Message):
    """A result was taken; the same body again gets the same receipt."""

    task_id: Id
    kind: Kind
    run_id: Id
    round: int
    learner: str
    size: int = Field(description="bytes")


class CombinedMetrics(Message):
    """Scores of a round: combined over the learners (weighted by examples where reported), and each learner's."""

    combined: Metrics = Field(default_factory=dict)
    learners: dict[str, Metrics] = Field(default_factory=dict)


class Bytes(Message):
    """Bytes of weights moved in a round."""

    down: int = 0
    up: int = 0


class Timings(Message):
    """Milliseconds on the controller's monotonic clock; null for what has not happened."""

    train_dispatch: float | None = Field(None, description="first train task offered to last one fetched")
    train_round: float | None = Field(None, description="first train task offered to last update taken")
    selection: float | None = None
    aggregation: float | None = None
    evaluation_dispatch: float | None = None
    evaluation_round: float | None = None
    federation_round: float | None = Field(None, description="first train task offered to last evaluation reply")


class Capped(Message):
    """A scaling factor too far above the others' (`schedule.factor_cap`), and what the update counts instead."""

    factor: float = Field(description="that its metadata make, not normalised")
    counts: float


class Round(Message):
    """One round: who trained, what came out."""

    round: int
    state: Literal["training", "aggregating", "evaluating", "closed"]
    model: Digest | None = Field(None, description="the community model that this round made")
    parent: Digest | None = Field(None, description="the model that it trained from")
    selected: list[str]
    completed: list[str]
    failed: dict[str, str] = Field(description="learner to reason")
    failure: str | None = Field(None, description="why the updates made no model; the one before stays")
    capped: dict[str, Capped] = Field(default_factory=dict, description="by learner, scaling factors that were capped")
    closed_by: str | None = Field(None, description="why the round stopped waiting")
    started_at: str
    completed_at: str | None = None
    train_metrics: CombinedMetrics = CombinedMetrics()
    evaluation_metrics: CombinedMetrics = CombinedMetrics()
    timings_ms: Timings = Timings()
    bytes: Bytes = Bytes()


class Run(Message):
    """One training run."""

    id: Id
    name: str | None = None
    state: Literal["waiting", "initializing", "training", "aggregating", "evaluating", "completed", "stopped", "failed"]
    reason: str | None = Field(None, description="why it ended")
    waiting_for: str | None = Field(None, description="what the run waits for, in words")
    config: RunConfig
    round: int = Field(description="0 before the first round, then the round in progress, at the end the last")
    model: Digest | None = Field(None, description="the newest community model")
    best_model: Digest | None = None
    best_round: int | None = None
    started_at: str
    ended_at: str | None = None


class Transformed(Message):
    """What a transform of the run did to an update before it counted."""

    name: str
    norm: float | None = Field(description="of the update's difference from its model, before; null: not finite")
    bound: float = Field(description="that was in force")
    did: Literal["kept", "clipped", "zeroed"]


class TaskRecord(Message):
    """A task of a run, as the results list it."""

    id: Id
    kind: str
    round: int
    learner: str
    state: Literal["offered", "accepted", "failed", "void"]
    reason: str | None = None
    traceback: str | None = Field(None, description="of a learner that failed, if it told one")
    factor: float | None = Field(None, description="scaling factor of the update, not normalised")
    metadata: Scalars = Field(default_factory=dict)
    transforms: list[Transformed] = Field(default_factory=list, description="of the run, in its order")
    duration_ms: float | None = Field(None, description="offered to accepted")


class Results(Message):
    """Everything about a run that `results.json` holds."""

    run: Run
    rounds: list[Round]
    tasks: list[TaskRecord]
    learners: list[Learner]
    model: Digest | None
    global_iteration: int = Field(description="number of community models made")
    initial_evaluation: CombinedMetrics | None = None
    ended_by: str | None


class Event(Message):
    """One line of the federation's log."""

    id: int
    kind: str = Field(description="learner-joined, run-started, round-started, update-accepted, round-closed, …")
    at: str
    text: str = Field(description="for people")
    run_id: str | None = None
    round: int | None = None
    learner: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class FederationStatus(Message):
    """The whole federation at a glance."""

    version: str
    contract: int = Field(description="number of the HTTP contract; it rises when clients of the one before may fail")
    state: str = Field(description="`idle`, `over`, or the active run's state")
    waiting_for: str | None = None
    learners: list[Learner]
    run: Run | None = None
    limits: dict[str, Any]
    model_store: str
    durable: bool = Field(
        description="true: learners, runs, rounds and models outlive the controller's process, which goes on with them"
        " when it is started again; false: all of that is in memory and ends with the process"
    )
    kept: str = Field("", description="the same in words")
    open: bool = Field(description="true: no token is configured, every caller is the operator")


class Problem(BaseModel):
    """An error (RFC 9457). Members beyond these are the values that matter, such as `limit`, `expected`, `got`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/errors/round-closed"])
    title: str
    status: int
    detail: str
    retryable: bool = Field(description="whether the same call may succeed later")
