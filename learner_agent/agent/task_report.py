"""What is told of a task while it is done, and of one that failed. `progress()` is what a user calls inside `train`."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from math import isfinite
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import services
from services import messages as m
from services.errors import FederationError, TaskVoid
from services.failures import Reason, of_error

T = TypeVar("T")
N = TypeVar("N", int, float)
AGENT = Path(__file__).parent
MACHINERY = tuple(f"{path}{os.sep}" for path in (AGENT, Path(services.__file__).parent))  # that calls the learner
STANDARD = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))
LIBRARIES = ("<", f"{AGENT.parent}{os.sep}", *MACHINERY, *STANDARD)  # and where others are installed:
INSTALLED = {"site-packages", "dist-packages"}


class LearnerFailed(Exception):
    """What the learner raised, as it is told: in a line, and its traceback apart. It holds nothing of the learner's."""

    def __init__(self, line: str, traceback: str | None = None) -> None:
        super().__init__(line)
        self.traceback = traceback


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
    """Tell how far the training is; cheap enough for every batch. Outside a task it does nothing. What is no number is
    left out.

    Raises TaskVoid when the task is no longer wanted (its round closed, the run ended): let it pass through.
    """
    report = current.get()
    if report is None:
        return
    if report.void is not None:
        raise TaskVoid(report.void)
    with suppress(Exception):  # whatever it is, it ends no training
        report.tell(m.Progress(epoch=_as(int, epoch), batch=_as(int, batch), loss=_as(float, loss)))


def _as(kind: type[N], number: Any) -> N | None:
    """A number, numpy's and torch's too; None for what is none, NaN or infinite."""
    try:
        return kind(number) if isfinite(number) else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def told(call: Callable[..., T], *arguments: Any) -> T:
    """Call what runs the learner's own code. What that raises, sys.exit() too, is told here, in its thread; here its
    frames end, with the data in them."""
    try:
        return call(*arguments)
    except LearnerFailed:
        raise
    except BaseException as error:
        if isinstance(error, FederationError) and not _is_learners(error):
            raise
        reason = reason_of(error)
    raise LearnerFailed(*reason)


def _is_learners(error: FederationError) -> bool:
    """Whether the learner's own code raised it, which may be a client of another federation."""
    if isinstance(error, TaskVoid):
        report = current.get()
        return report is None or report.void is None
    return any(not one.tb_frame.f_code.co_filename.startswith(MACHINERY) for one in _steps(error.__traceback__))


def reason_of(error: BaseException) -> Reason:
    """Why a task failed. The traceback begins where the agent called the learner."""
    if isinstance(error, LearnerFailed):
        return Reason(str(error), error.traceback)
    beyond = [one for one in _steps(error.__traceback__) if not one.tb_frame.f_code.co_filename.startswith(MACHINERY)]
    return of_error(error, beyond[0] if beyond else None, _place([(one.tb_frame, one.tb_lineno) for one in beyond]))


def _place(frames: list[tuple[FrameType, int]]) -> str:
    """Where the learner's own code called what failed: its innermost frame. A learner that is installed as a library
    counts as its own code."""
    own = [one for one in frames if not _is_library(one[0].f_code.co_filename)]
    own = own or [one for one in frames if _package(one[0]) == _package(frames[0][0])]
    if not own:
        return ""
    frame, line = own[-1]
    return f"{Path(frame.f_code.co_filename).name}:{line} in {frame.f_code.co_name}"


def _steps(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _is_library(file: str) -> bool:
    return file.startswith(LIBRARIES) or not INSTALLED.isdisjoint(Path(file).parts)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
