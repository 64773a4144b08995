"""A federation with its learners and a clock that the test moves: no transport, no store, no waiting."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import count
from typing import Any

from pydantic import BaseModel

from services import messages as m
from services.config import merge
from services.federation import (
    Aggregation,
    Assignment,
    Entry,
    Federation,
    Member,
    ModelInfo,
    Outcome,
    RoundState,
    RunState,
)

START = 1000.0  # seconds on the clock when a test begins
EPOCH = 1_700_000_000.0 - START
THREE_ROUNDS = {"scaling_factor": "NumParticipants", "termination": {"federation_rounds": 3}}


class Fleet:
    """Learners by name, their federation, and the time `now`."""

    def __init__(self, *names: str) -> None:
        self._ids = count(1)
        self.now = START
        self.federation = Federation({}, EPOCH, lambda: f"id-{next(self._ids)}")
        self.ids: dict[str, str] = {}
        self.jobs: list[Aggregation] = []
        self.factors: dict[str, float] = {}  # by learner's name, of its updates; else 1
        for name in names:
            self.join(name)

    # ---- learners
    def join(self, name: str, **request: Any) -> Member:
        """A learner of that name enrols."""
        token = f"{name} {next(self._ids)}".encode()
        member = self.federation.join(m.JoinRequest(name=name, **request), token, self.now)
        self.ids[name] = member.id
        return member

    def leave(self, name: str) -> None:
        """The learner leaves for good."""
        self.federation.leave(self.ids[name], self.now)

    def poll(self, name: str) -> Assignment | None:
        """What the learner is to do."""
        return self.federation.next_task(self.ids[name], self.now)

    def task(self, name: str, kind: str = "train") -> Assignment:
        """The same, when it must be a task of that kind."""
        task = self.poll(name)
        assert task is not None
        assert task.kind == kind
        return task

    def give(self, task: Assignment, body: str = "", **metrics: float | None) -> tuple[m.Receipt, bool]:
        """The result of a task; by default each task's body is one of its own."""
        made = outcome(task, body, metrics)
        if task.kind == "train":
            made = replace(made, factor=self.factors.get(task.learner, 1.0))
        return self.federation.accept(task.id, made, self.now)

    def refuse(self, name: str, why: str = "tensor 'w' holds NaN") -> Assignment:
        """The learner sends an update that is refused, for the task that it must have."""
        task = self.task(name)
        self.federation.refuse(task.id, why, self.now)
        return task

    def do(self, name: str, kind: str = "train", **metrics: Any) -> Assignment:
        """The learner does the task that it must have."""
        task = self.task(name, kind)
        assert self.give(task, **metrics)[1]
        return task

    def fail(self, name: str, error: str = "out of memory", traceback: str | None = None) -> Assignment:
        """The learner cannot do the task that it must have."""
        task = self.poll(name)
        assert task is not None
        self.federation.fail(task.id, self.ids[name], error, self.now, traceback)
        return task

    # ---- runs
    def start(self, given: Mapping[str, Any] | None = None, **more: Any) -> RunState:
        """Start a run; without another signal it ends after three rounds."""
        defaults = THREE_ROUNDS if "termination" not in more else {"scaling_factor": "NumParticipants"}
        return self.federation.start(merge(merge(defaults, given or {}), more), self.now)

    def train(self, **config: Any) -> RunState:
        """Start a run and give it model 0, so that round 1 is in training."""
        run = self.start(**config)
        (asked,) = [name for name in self.ids if (task := self.poll(name)) and task.kind == "init"]
        self.do(asked, "init")
        return run

    def aggregate(self) -> Aggregation:
        """The aggregation that must be due, done in 10 ms."""
        job = self.federation.due()
        assert job is not None
        self.aggregated(job)
        return job

    def aggregated(self, job: Aggregation) -> None:
        """The model of a job that was taken."""
        self.jobs.append(job)
        self.federation.aggregated(job, model(f"{job.run_id} {job.round}"), (None, None), 0.010, self.now)

    def play(self, *names: str, **metrics: Any) -> None:
        """The named learners (all) do what they are asked, and what is due is aggregated, until a round has closed."""
        (run,) = [run for run in self.federation.runs.values() if not run.over]
        closed = len(self.closed(run))
        for _ in range(200):
            busy = [name for name in names or self.ids if (task := self.poll(name)) and self.give(task, **metrics)]
            if job := self.federation.due():
                self.aggregated(job)
            elif not busy or run.over or len(self.closed(run)) > closed:
                return
        raise AssertionError(f"no round closed: {self.waiting_for(run)}")

    # ---- time, and what is seen
    def wait(self, seconds: float) -> None:
        """Time passes, in the steps that the federation asks for."""
        until = self.now + seconds
        while (deadline := self.federation.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.federation.tick(self.now)
        self.now = until
        self.federation.tick(self.now)

    def stay(self, seconds: float, *names: str, every: float = 10.0) -> None:
        """Time passes while the named learners (all) send heartbeats."""
        until = self.now + seconds
        while self.now < until:
            self.wait(min(every, until - self.now))
            for name in names or self.ids:
                self.federation.heartbeat(self.ids[name], m.Heartbeat(), self.now)

    def closed(self, run: RunState) -> list[RoundState]:
        """The run's closed rounds."""
        return [one for one in run.rounds if one.state == "closed"]

    def waiting_for(self, run: RunState) -> str | None:
        """What the run waits for, in words."""
        return self.federation.run_message(run, self.now).waiting_for

    def events(self) -> list[Entry]:
        """What happened since the last call."""
        return self.federation.journal.collect()

    def kinds(self) -> list[str]:
        """The kinds of what happened since the last call."""
        return [event.kind for event in self.events()]


def model(text: str) -> ModelInfo:
    """A community model that stands for the bytes of `text`."""
    return ModelInfo(f"sha256-{hashlib.sha256(text.encode()).hexdigest()}", len(text))


def outcome(task: Assignment, body: str = "", metrics: Mapping[str, float | None] | None = None) -> Outcome:
    """A checked result of a task, of that body."""
    body = body or f"result of {task.id}"
    if task.kind == "init":
        return Outcome(body, len(body), model=model(body))
    if task.kind == "evaluate":
        return Outcome(body, len(body), dict(metrics or {}))
    return Outcome(body, len(body), dict(metrics or {}), factor=1.0, blob=f"blob {task.id} {body}")


def dump(value: Any, without: Collection[str] = ()) -> Any:
    """Everything that an object holds as plain values, to be compared; attributes named in `without` are left out."""
    if isinstance(value, BaseModel):
        return value  # frozen
    if isinstance(value, Mapping):
        return {repr(key): dump(one, without) for key, one in value.items()}
    if isinstance(value, list | tuple | deque):
        return [dump(one, without) for one in value]
    if isinstance(value, set):
        return sorted(map(repr, value))
    if callable(value) or value is None or isinstance(value, str | bytes | int | float):
        return repr(value) if not callable(value) else "callable"
    return {name: dump(one, without) for name, one in _attributes(value) if name not in without}


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    names = [field.name for field in fields(value)] if is_dataclass(value) else list(vars(value))
    yield from ((name, getattr(value, name)) for name in names)
