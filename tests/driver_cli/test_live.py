"""The live view: what is on the screen while a run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pty
import subprocess
from pathlib import Path

from rich.console import Console

from driver_cli.session import follower
from driver_cli.show.display import Lines, Silent, display_for
from driver_cli.show.live import draw
from driver_cli.show.view import View
from services import messages as m
from tests.conftest import InProcess

from .conftest import METIS, clean_environment
from .test_report import results

NOW = "2030-01-01T00:00:09.000Z"


def learner(name: str, state: str = "active") -> m.Learner:
    """A learner of the federation."""
    return m.Learner.model_validate(
        {"id": name, "name": name, "state": state, "joined_at": NOW, "last_seen": NOW, "last_seen_s": 0}
    )


def view(rounds: int, learners: int) -> View:
    """A run with so many closed rounds and learners."""
    found = results(*[0.5] * rounds)
    run = found.run.model_copy(update={"state": "training", "waiting_for": "waiting for b", "reason": None})
    return View(
        "http://here:1",
        run,
        since=NOW,
        learners=[learner(f"learner-{n}", "lost" if n == 0 else "active") for n in range(learners)],
        rounds={one.round: one for one in found.rounds},
    )


def drawn(seen: View, height: int = 30) -> str:
    """The screen as text."""
    console = Console(file=io.StringIO(), width=100, height=height)
    with console.capture() as capture:
        console.print(draw(seen, 12.0, height))
    return capture.get()


def event(kind: str, **given: object) -> m.Event:
    """An event of the run."""
    return m.Event.model_validate({"id": 1, "kind": kind, "at": NOW, "text": kind, "run_id": "r1", **given})


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


async def test_what_is_waited_for_is_kept_up_to_date_while_nothing_happens(controller: InProcess) -> None:
    """No event tells that time passes: the controller is asked, and the seconds on the screen go down."""
    client = controller.client()
    run = await client.start_run({"termination": {"federation_rounds": 1}})
    seen = View("http://here:1", run, since=run.started_at)
    assert "gives up in 3600 s" in drawn(seen)
    async with asyncio.timeout(4 * follower.CHECK_S):
        await follower.Follower(
            client, client.events, seen, lambda _: None, lambda: "gives up in 3600 s" not in str(seen.run.waiting_for)
        ).follow()
    assert "waiting for 1 more of 1 learners; here: nobody; gives up in 359" in drawn(seen)


def test_many_rounds_and_learners_fit_the_screen() -> None:
    """The newest rounds and the live learners stay; the rest is counted."""
    lines = drawn(view(500, 80), height=24).splitlines()
    assert len(lines) <= 24
    assert any(line.lstrip().startswith("500/500") for line in lines)
    assert any("more" in line for line in lines)


def test_events_keep_the_view_up_to_date_and_unknown_ones_are_harmless() -> None:
    """A controller of another version may say more, or say it differently."""
    seen = view(0, 1)
    seen.apply(event("something-new", data={"state": "odd"}))
    seen.apply(event("round-closed", round=1, data={"unexpected": True}))
    assert seen.rounds == {}
    seen.apply(event("round-closed", round=1, data=results(0.5).rounds[0].model_dump(mode="json")))
    assert [one.round for one in seen.closed] == [1]
    seen.apply(event("run-ended", data={"state": "stopped", "reason": "enough"}))
    assert (seen.ended, seen.run.reason) == (True, "enough")


def test_history_and_other_runs_are_no_news() -> None:
    """A driver that attaches is not told what happened before it came."""
    seen = view(0, 1)
    assert seen.concerns(event("round-closed"))
    assert not seen.concerns(event("round-closed", at="2030-01-01T00:00:08.999Z"))
    assert not seen.concerns(event("round-closed", run_id="another"))
    assert seen.concerns(event("learner-joined", run_id=None))


def test_pipe_gets_lines_and_none_gets_silence() -> None:
    """A table that redraws itself is for terminals only; each round is told once."""
    out = io.StringIO()
    display = display_for(out)
    assert isinstance(display, Lines)
    for _ in range(2):
        display.show(view(2, 1))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["1/2", "2/2"]
    assert isinstance(display_for(None), Silent)


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
