"""`progress()`: what a user calls inside `train` to feed the live view and to learn that the work is not wanted."""

from __future__ import annotations

from contextvars import ContextVar

from services import messages as m
from services.errors import TaskVoid


class Report:
    """How far one task is. Written by the thread that works, read by the event loop."""

    def __init__(self) -> None:
        self.latest: m.Progress | None = None
        self.void: str | None = None  # why the task is no longer wanted


current: ContextVar[Report | None] = ContextVar("current", default=None)


def progress(epoch: int | None = None, batch: int | None = None, loss: float | None = None) -> None:
    """Tell how far the training is; cheap enough for every batch. Outside a task it does nothing.

    Raises TaskVoid when the task is no longer wanted (its round closed, the run ended): let it pass through.
    """
    report = current.get()
    if report is None:
        return
    if report.void is not None:
        raise TaskVoid(report.void)
    finite = None if loss is None or loss != loss or abs(loss) == float("inf") else float(loss)
    report.latest = m.Progress(epoch=epoch, batch=batch, loss=finite)
