"""Which display a run has: lines in a pipe, silence where nothing is to be shown."""

from __future__ import annotations

import io

from driver_cli.show.display import Lines, Silent, display_for

from .example_run import view


def test_pipe_gets_lines_and_none_gets_silence() -> None:
    """A table that redraws itself is for terminals only; each round is told once."""
    out = io.StringIO()
    display = display_for(out)
    assert isinstance(display, Lines)
    for _ in range(2):
        display.show(view(2, 1))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["1/2", "2/2"]
    assert isinstance(display_for(None), Silent)
