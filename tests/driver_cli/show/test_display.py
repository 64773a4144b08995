"""Which display a run has: lines in a pipe, silence where nothing is to be shown."""

from __future__ import annotations

import io

from driver_cli.show import tables
from driver_cli.show.display import Lines, Silent, display_for
from services import messages as m
from services.process import plain

from .example_run import event, learner, view


def test_pipe_gets_lines_and_none_gets_silence() -> None:
    """A table that redraws itself is for terminals only; each round is told once."""
    out = io.StringIO()
    display = display_for(out)
    assert isinstance(display, Lines)
    for _ in range(2):
        display.show(view(2, 1))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["1/2", "2/2"]
    assert isinstance(display_for(None), Silent)


HOSTILE = "ann\x9b2Ja\u202exe \x1b]0;owned\x07"
SHOWN = r"ann\x9b2Ja\u202exe \x1b]0;owned\x07"


def test_lines_hold_no_commands_of_others() -> None:
    """Names, errors and names of scores that hold escape sequences or turn the line around are written out."""
    out = io.StringIO()
    display = display_for(out)
    seen = view(1, 1)
    told = seen.rounds[1].model_copy(update={"selected": [HOSTILE], "failed": {HOSTILE: f"{HOSTILE}\nand more"}})
    seen.rounds[1] = told.model_copy(
        update={"evaluation_metrics": m.CombinedMetrics(combined={f"{HOSTILE}\nround 2": 0.5})}
    )
    display.show(seen, event("learner-joined", text=f"{HOSTILE} joined"))
    display.note(HOSTILE)
    joined, round_, note = out.getvalue().split("\n")[:-1]
    assert (joined, note) == (f"{SHOWN} joined", SHOWN)
    assert rf"eval {SHOWN}\nround 2=0.5" in round_
    assert f"{SHOWN} failed: ann 2Ja" in round_


def test_tables_hold_no_commands_of_others() -> None:
    """A cell is as wide as what is shown of it, and stays one line."""
    anna, bert = learner(HOSTILE), learner("bert")
    text = plain(tables.learners([anna, bert]))
    assert SHOWN in text
    assert not set(text) & set("\x9b\x1b\x07\u202e")
    head, *rows = [line for line in text.splitlines() if line]
    assert {row.index("active") for row in rows} == {head.index("state")}
    assert "a\\nb" in tables.columns([["a\nb"], ["c"]])
