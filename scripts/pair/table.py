"""What was compared, on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .comparison import LIMIT, Comparison, Interval

COLOURS = {"worse": "red", "better": "green", "not worse": ""}


def table(compared: Sequence[Comparison], console: Console) -> Table:
    """A row for each measure."""
    shown = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN, header_style="bold")
    shown.add_column("case")
    shown.add_column("measure")
    for name in ("other", "this", "ratio", "interval", "A/A interval"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    for one in compared:
        numbers = (f"{one.other:.4g}", f"{one.this:.4g}", f"{one.ratio:.3f}", between(one.interval), between(one.same))
        shown.add_row(one.case, one.measure, *numbers, Text(one.verdict, COLOURS[one.verdict]))
    return shown


def between(limits: Interval) -> str:
    """Two ratios."""
    return f"{limits[0]:.3f} to {limits[1]:.3f}"


def notes(compared: Sequence[Comparison], untold: Sequence[str]) -> Iterator[str]:
    """What a reader of the table must know."""
    for one in compared:
        if one.verdict == "not worse" and one.same[1] > LIMIT:
            loss = f"{100 * (one.same[1] - 1):.0f} %"
            yield f"{one.case}, {one.measure}: a loss of up to {loss} could not be told from noise"
    for name in untold:
        yield f"{name}: not compared, one of the commits does not tell it or it was 0"
