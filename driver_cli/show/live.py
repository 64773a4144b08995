"""The live view of a run on a terminal: a progress bar, the rounds with their scores, the learners at work."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live as RichLive
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from services import messages as m
from services.process import plain, plain_line

from . import words
from .report import report
from .tables import rounds_cells
from .view import View

PER_SECOND = 8  # how often the screen is drawn
FIXED_LINES = 10  # of the header, the borders and the prompt: what the two tables cannot use
ALARMING = (
    "task-failed",
    "update-refused",
    "learner-lost",
    "learner-aside",
    "factor-capped",
    "result-shortened",
    "round-failed",
)
STYLES = {"active": "green", "lost": "red", "left": "dim"}


class Terminal(Console):
    """A console that gives commands of its own alone, none that stand in what it shows."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Console."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)


def terminal(out: TextIO, width: int | None = None) -> Console:
    """A console on `out`."""
    return Terminal(file=out, highlight=False, width=width)


class Live:
    """Redraws the run in place; notes scroll by above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view: View | None = None
        self._begun = time.monotonic()
        self._live = RichLive(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=PER_SECOND,
            vertical_overflow="crop",
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Print the text above the table."""
        self._print(text)

    def show(self, view: View, event: m.Event | None = None) -> None:
        """Draw the view at the next refresh; tell of failures above it."""
        self._view = view
        if event is not None and event.kind in ALARMING:
            self._print(event.text, "yellow")

    def end(self, view: View, results: m.Results) -> None:
        """Leave the report in place of the table."""
        self._live.stop()
        self._print(report(results, view.central))

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(escape(plain(text)), style=style)

    def _draw(self) -> RenderableType:
        if self._view is None:
            return Text("")
        return draw(self._view, time.monotonic() - self._begun, self._console.height)


def draw(view: View, elapsed_s: float, height: int) -> RenderableType:
    """The whole view, no higher than `height` lines."""
    room = max(height - FIXED_LINES, 6)
    learners = min(len(view.learners), max(room // 2, 3))
    return Group(
        header(view), bar(view, elapsed_s), rounds_table(view, room - learners), learners_table(view, learners)
    )


def header(view: View) -> Text:
    """Which run, where, in what state, and what it waits for."""
    run = view.run
    text = Text(f"run {run.name or run.id} ", style="bold")
    text.append(run.state, style={"failed": "bold red", "completed": "bold green"}.get(run.state, "bold cyan"))
    text.append(f"  {view.url}", style="dim")
    if run.waiting_for or run.reason:
        text.append(f"\n{run.reason or run.waiting_for}", style="default")
    return text


def bar(view: View, elapsed_s: float) -> RenderableType:
    """How much of the run is done: by rounds where their number is known."""
    total = view.run.config.termination.federation_rounds
    done = sum(one.failure is None for one in view.closed)
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(total=total, completed=done, width=40, pulse=total is None and not view.ended),
        f"{done}/{total} rounds" if total is not None else words.plural(done, "round"),
        words.duration(elapsed_s),
    )
    return line


def rounds_table(view: View, rows: int) -> Table:
    """The newest `rows` rounds."""
    head, cells = rounds_cells(view.run.config, view.closed[-rows:], view.central)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in head:
        table.add_column(escape(heading), justify="right")
    for row in cells:
        table.add_row(*map(escape, row))
    return table


def learners_table(view: View, rows: int) -> Table:
    """The learners, those at work first, at most `rows` of them."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("learner", "state", "at work", "progress"):
        table.add_column(name)
    ordered = sorted(view.learners, key=lambda learner: (learner.state != "active", learner.name))
    for learner in ordered[:rows]:
        table.add_row(
            escape(plain_line(learner.name)),  # as wide as it is shown
            Text(words.standing(learner), style=STYLES.get(learner.state if learner.health == "ok" else "lost", "")),
            escape(view.at_work.get(learner.name, "")),
            words.progress(view.progress.get(learner.name)),
        )
    if len(ordered) > rows:
        table.add_row(Text(f"and {len(ordered) - rows} more", style="dim"))
    return table
