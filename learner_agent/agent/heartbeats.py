"""Heartbeats: while a task is done, the controller is told that its learner lives and how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import structlog

from services import messages as m
from services.errors import (
    DifferentBody,
    FederationError,
    FederationOver,
    RoundClosed,
    TaskVoid,
    Unauthenticated,
    UnknownLearner,
    UnknownModel,
    UnknownTask,
)
from services.rest import Client

from .task_report import TaskReport

T = TypeVar("T")
log = structlog.get_logger("learner")
LOOK_S = 1.0  # how often a running task's progress is looked at
NOT_WANTED = (TaskVoid, RoundClosed, UnknownTask, UnknownModel, DifferentBody)  # what says so of a task
NOT_A_MEMBER = (Unauthenticated, UnknownLearner, FederationOver)  # what ends the membership


class Delayed(Generic[T]):
    """A call that begins after `delay_s` seconds, unless it was cancelled before: a timer costs less than a task."""

    def __init__(self, delay_s: float, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._task: asyncio.Task[T] | None = None
        self._call = call
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._start)

    def _start(self) -> None:
        self._task = asyncio.create_task(self._call())

    def result(self) -> T | None:
        """What it gave, or raises what it raised; None while it is not done."""
        return self._task.result() if self._task is not None and self._task.done() else None

    def cancel(self) -> None:
        """End it, or keep it from beginning."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


def heartbeats(client: Client, learner_id: str, task: m.Task, report: TaskReport) -> Delayed[FederationError]:
    """Heartbeats of a task that begins now, until they are cancelled. Their result is what ended the membership.

    Most tasks are done before the first one is due.
    """
    return Delayed(min(LOOK_S, task.heartbeat_s), lambda: _beat(client, learner_id, task, report))


async def _beat(client: Client, learner_id: str, task: m.Task, report: TaskReport) -> FederationError:
    """Tell the controller that the work, begun a pause ago, goes on and how far it is.

    A learner that is still busy with what is no longer wanted is alive, and says so.
    """
    clock, pause, told = asyncio.get_running_loop().time, min(LOOK_S, task.heartbeat_s), None
    sent = clock() - pause
    while True:
        if report.latest is told and clock() - sent < task.heartbeat_s:
            await asyncio.sleep(pause)
            continue
        told, sent = report.latest, clock()
        try:
            await client.heartbeat(learner_id, None if report.void else task.id, told)
        except NOT_WANTED as error:
            report.void = error.detail
        except NOT_A_MEMBER as error:
            report.void = error.detail
            return error
        except FederationError as error:
            log.warning("a heartbeat was refused", why=error.detail)
