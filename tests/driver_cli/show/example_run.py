"""A run of some rounds, its learners and events, made up; and the screen that shows it."""

from __future__ import annotations

import io

from driver_cli.show.live import Terminal, draw
from driver_cli.show.view import View
from services import messages as m
from services.config import RunConfig, TerminationSignals

DIGEST = "sha256-" + "0" * 64


def results(*accuracies: float, reason: str = "3 rounds are done") -> m.Results:
    """Results with a round for each accuracy."""
    config = RunConfig(termination=TerminationSignals(federation_rounds=max(1, len(accuracies))))
    rounds = [
        m.Round(
            round=number,
            state="closed",
            model=DIGEST,
            selected=["a", "b"],
            completed=["a"],
            failed={"b": "out of memory"},
            started_at="2030-01-01T00:00:00Z",
            completed_at="2030-01-01T00:00:02.5Z",
            train_metrics=m.CombinedMetrics(combined={"loss": 0.5}),
            evaluation_metrics=m.CombinedMetrics(combined={"accuracy": accuracy, "loss": None}),
        )
        for number, accuracy in enumerate(accuracies, 1)
    ]
    run = m.Run(
        id="r1", state="completed", reason=reason, config=config, round=len(rounds), started_at="2030-01-01T00:00:00Z"
    )
    return m.Results(run=run, rounds=rounds, tasks=[], learners=[], model=DIGEST, global_iteration=3, ended_by="x")


NOW = "2030-01-01T00:00:09.000Z"


def learner(name: str, state: str = "active") -> m.Learner:
    """A learner of the federation."""
    return m.Learner.model_validate(
        {"id": "l", "name": name, "state": state, "joined_at": NOW, "last_seen": NOW, "last_seen_s": 0}
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
    console = Terminal(file=io.StringIO(), width=100, height=height)
    with console.capture() as capture:
        console.print(draw(seen, 12.0, height))
    return capture.get()


def event(kind: str, **given: object) -> m.Event:
    """An event of the run."""
    return m.Event.model_validate({"id": 1, "kind": kind, "at": NOW, "text": kind, "run_id": "r1", **given})
