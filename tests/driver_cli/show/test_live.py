"""The live view: what is on the screen while a run goes on."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
from pathlib import Path

from driver_cli.show.live import Live, draw, terminal

from ..processes import METIS, clean_environment
from .example_run import drawn, event, learner, results, view


def test_screen_shows_state_rounds_learners_and_what_is_waited_for() -> None:
    """Everything that a person looks for is on one screen."""
    seen = view(3, 2)
    seen.apply(event("task-offered", learner="learner-1", data={"task_kind": "train"}))
    seen.apply(event("task-progress", learner="learner-1", data={"epoch": 2, "batch": 7, "loss": 0.25}))
    screen = drawn(seen)
    for text in (
        "training",
        "waiting for b",
        "3/3 rounds",
        "12 s",
        "accuracy",
        "train    epoch 2 batch 7 loss=0.25",
        "lost",
    ):
        assert text in screen


def test_a_long_wait_is_told_whole() -> None:
    """Who is missing, since when, and when the wait ends, on as many lines as it takes; the rest still fits."""
    seen = view(50, 20)
    told = (
        "waiting for 5 more of 8: a-learner-with-a-long-name, last seen 41 s ago; another (lost), last seen 61 s ago;"
        " a-third-one, last seen 3 s ago; 2 others; round closes in 79 s; the run ends in 600 s"
    )
    seen.run = seen.run.model_copy(update={"waiting_for": told})
    lines = drawn(seen, height=24).splitlines()
    assert len(lines) <= 24
    assert told in " ".join(line.strip() for line in lines)


def test_many_rounds_and_learners_fit_the_screen() -> None:
    """The newest rounds and the live learners stay; the rest is counted."""
    lines = drawn(view(500, 80), height=24).splitlines()
    assert len(lines) <= 24
    assert any(line.lstrip().startswith("500/500") for line in lines)
    assert any("more" in line for line in lines)


def test_terminal_gets_the_live_table_and_keeps_the_report(tmp_path: Path) -> None:
    """On a terminal the screen is redrawn; at the end the table of rounds and the curve stay."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*METIS, "simulate", "--learners", "3", "--rounds", "3"],
        cwd=tmp_path,
        env=clean_environment(TERM="xterm-256color", COLUMNS="110", LINES="30"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how Linux tells that the other side of a terminal was closed
        while piece := os.read(ours, 65536):
            said += piece
    os.close(ours)
    assert process.wait(30) == 0
    screen = said.decode()
    assert "\x1b[" in screen
    assert "3/3" in screen.rpartition("\x1b[2K")[2]
    assert "┤" in screen.rpartition("\x1b[2K")[2]


def test_the_screen_holds_no_commands_of_others() -> None:
    """Names, and words of events and errors, are written out; what the view itself draws with is not."""
    hostile, out = "ann\x9b2Ja\u202e\x1b]0;owned\x07", io.StringIO()
    console = terminal(out, width=160)
    seen = view(1, 1)
    seen.learners = [learner(hostile)]
    seen.run = seen.run.model_copy(update={"name": hostile, "waiting_for": f"waiting for {hostile}"})
    live = Live(console)
    live.note(hostile)
    live.show(seen, event("task-failed", text=f"{hostile} failed"))
    console.print(draw(seen, 12.0, 30))
    live.end(seen, results(0.5, reason=hostile))
    text = out.getvalue()
    assert text.count(r"ann\x9b2Ja\u202e\x1b]0;owned") == 6
    assert not set(text) & set("\x9b\x07\u202e")
    assert "\x1b]" not in text
