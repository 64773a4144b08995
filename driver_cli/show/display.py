"""What is shown while a run goes on: nothing, plain lines (in a pipe), or a live table (on a terminal)."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self, TextIO

from services import messages as m
from services.process import plain

from . import words
from .report import metric_curve
from .view import LEARNER_EVENTS, View

TOLD = (*LEARNER_EVENTS, "task-failed", "update-refused")


class Display(Protocol):
    """Shows a run. Used in `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, text: str) -> None:
        """Say something beside the run: what is waited for, where a file is."""

    def show(self, view: View, event: m.Event | None = None) -> None:
        """The run changed, by `event` if there was one."""

    def end(self, view: View, results: m.Results) -> None:
        """The run is over, and these are its results."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def note(self, text: str) -> None:
        """Nothing."""

    def show(self, view: View, event: m.Event | None = None) -> None:
        """Nothing."""

    def end(self, view: View, results: m.Results) -> None:
        """Nothing."""


class Lines(Silent):
    """A line for each thing that happens, flushed at once: for pipes, logs and screens without a cursor."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rounds: set[int] = set()
        self._waiting: tuple[str, tuple[str, ...]] | None = None

    def note(self, text: str) -> None:
        """Print the text, once for each time it changes."""
        print(plain(text), file=self._out, flush=True)

    def show(self, view: View, event: m.Event | None = None) -> None:
        """Print what is new: a closed round, another thing to wait for, a learner that came or went."""
        if event is not None and event.kind in TOLD:
            self.note(event.text)
        for closed in view.closed:
            if closed.round not in self._rounds:
                self._rounds.add(closed.round)
                self.note(words.round_line(view.run.config, closed))
        self._show_waiting(view)

    def end(self, view: View, results: m.Results) -> None:
        """Print the curve of a score, and how the run ended."""
        self.show(view)
        for part in (metric_curve(results), words.ending(results.run)):
            if part is not None:
                self.note(part)

    def _show_waiting(self, view: View) -> None:
        if view.run.state not in ("waiting", "initializing") or view.run.waiting_for is None:
            self._waiting = None
            return
        here = sorted(learner.name for learner in view.here) if view.run.state == "waiting" else []
        waits = (view.run.state, tuple(here))
        if waits != self._waiting:  # the words themselves count seconds
            self._waiting = waits
            self.note(view.run.waiting_for)


def display_for(out: TextIO | None) -> Display:
    """The live table where `out` is a terminal that has a cursor, lines where it is not, nothing for None."""
    if out is None:
        return Silent()
    if out.isatty():
        from .live import Live, terminal  # rich is imported only where it draws

        console = terminal(out)
        if console.is_terminal and not console.is_dumb_terminal:
            return Live(console)
    return Lines(out)


def stderr() -> TextIO:
    """Where a session shows its run unless told otherwise: standard output belongs to the program."""
    return sys.stderr
