"""What the driver knows of a run, kept up to date by the controller's events; displays draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from services import messages as m

LEARNER_EVENTS = (
    *("learner-joined", "learner-left", "learner-lost", "learner-returned"),
    *("learner-aside", "learner-readmitted"),
)


@dataclass
class View:
    """One run, its rounds and the federation's learners, as last heard."""

    url: str
    run: m.Run
    since: str  # ISO 8601 on the controller's clock: events before it are history, and in the run as it was asked for
    learners: list[m.Learner] = field(default_factory=list)
    rounds: dict[int, m.Round] = field(default_factory=dict)
    at_work: dict[str, str] = field(default_factory=dict)  # kind of the task by the learner's name
    progress: dict[str, m.Progress] = field(default_factory=dict)  # by the learner's name
    central: dict[int, m.Metrics] = field(default_factory=dict)  # by round: scores of the driver's own evaluation
    last_event: int = 0  # id of the newest event that was heard

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.run.state in m.TERMINAL

    @property
    def closed(self) -> list[m.Round]:
        """The rounds that made a model or failed to, oldest first."""
        return [self.rounds[number] for number in sorted(self.rounds) if self.rounds[number].state == "closed"]

    @property
    def here(self) -> list[m.Learner]:
        """The learners that the controller hears of."""
        return [learner for learner in self.learners if learner.state == "active"]

    def is_closed(self, number: int) -> bool:
        """Whether the round is over."""
        return number in self.rounds and self.rounds[number].state == "closed"

    def concerns(self, event: m.Event) -> bool:
        """Whether `event` is news of this run, or of the federation."""
        return event.at >= self.since and event.run_id in (None, self.run.id)

    def apply(self, event: m.Event) -> None:
        """Take in one event of this run; a kind that is not known changes nothing."""
        if event.kind in ("run-state", "run-ended"):
            self._set_run(event)
        elif event.kind == "round-closed":
            self._set_round(event)
        elif event.kind == "task-progress":
            self._set_progress(event)
        elif event.kind == "task-offered" and event.learner is not None:
            self.at_work[event.learner] = str(event.data.get("task_kind", "working"))
        elif event.kind in ("update-accepted", "task-failed") and event.learner is not None:
            self.at_work.pop(event.learner, None)
            self.progress.pop(event.learner, None)
        elif event.kind == "round-started" and event.round is not None:
            self.run = self.run.model_copy(update={"round": event.round})

    def refresh(self, learners: Sequence[m.Learner], run: m.Run | None) -> None:
        """Take in what the controller answers when it is asked."""
        self.learners = list(learners)
        if run is not None and run.id == self.run.id:
            self.run = run

    def conclude(self, results: m.Results) -> None:
        """Take in the results: they have everything that events left out."""
        self.run = results.run
        self.rounds = {one.round: one for one in results.rounds}
        self.at_work.clear()
        self.progress.clear()

    def _set_run(self, event: m.Event) -> None:
        known = {key: event.data.get(key) for key in ("state", "waiting_for", "reason")}
        if known["state"] is not None:
            self.run = self.run.model_copy(update=known)

    def _set_round(self, event: m.Event) -> None:
        try:
            closed = m.Round.model_validate(event.data)
        except ValidationError:  # of another version: the results will hold it
            return
        self.rounds[closed.round] = closed
        for name in closed.selected:
            self.at_work.pop(name, None)
            self.progress.pop(name, None)

    def _set_progress(self, event: m.Event) -> None:
        if event.learner is not None:
            known = {key: event.data.get(key) for key in ("epoch", "batch", "loss")}
            self.progress[event.learner] = m.Progress.model_construct(**known)
