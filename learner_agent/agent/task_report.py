"""What is told of a task while it is done, and of one that failed. `progress()` is what a user calls inside `train`."""

from __future__ import annotations

import math
import traceback
from contextvars import ContextVar

from services import messages as m
from services.errors import TaskVoid

TAIL_LINES = 12  # of a traceback


class TaskReport:
    """How far one task is. Written by the thread that works, read by the event loop."""

    def __init__(self) -> None:
        self.latest: m.Progress | None = None
        self.void: str | None = None  # why the task is no longer wanted

    def tell(self, progress: m.Progress) -> None:
        """The work is as far as this."""
        self.latest = progress


current: ContextVar[TaskReport | None] = ContextVar("current", default=None)


def progress(epoch: int | None = None, batch: int | None = None, loss: float | None = None) -> None:
    """Tell how far the training is; cheap enough for every batch. Outside a task it does nothing.

    Raises TaskVoid when the task is no longer wanted (its round closed, the run ended): let it pass through.
    """
    report = current.get()
    if report is None:
        return
    if report.void is not None:
        raise TaskVoid(report.void)
    finite = None if loss is None or not math.isfinite(loss) else float(loss)
    report.tell(m.Progress(epoch=_whole(epoch), batch=_whole(batch), loss=finite))


def _whole(number: int | None) -> int | None:
    return None if number is None else int(number)  # numpy's integers too


def failure_reason(error: BaseException) -> str:
    """The message and the end of the traceback, as a failure is reported."""
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    return "\n".join(lines[-TAIL_LINES:])
