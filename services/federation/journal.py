"""The federation's log: one ordered list of events, each with a sentence for people and data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from .. import messages as m

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Entry(NamedTuple):
    """An event as it is kept, ten thousand of them; `Journal.message` makes the contract's form of it."""

    id: int
    kind: str
    at: float  # on the monotonic clock
    text: str
    run: str | None
    round: int | None
    learner: str | None
    data: Mapping[str, Any]


class Journal:
    """Numbers events and leaves them in `outbox`. `epoch` is the wall-clock time at which the monotonic clock was 0."""

    def __init__(self, epoch: float) -> None:
        self.outbox: list[Entry] = []
        self.epoch = epoch
        self.count = 0  # of all events so far

    def iso(self, now: float) -> str:
        """ISO 8601 in UTC of a moment on the monotonic clock."""
        return datetime.fromtimestamp(self.epoch + now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def emit(
        self,
        now: float,
        kind: str,
        text: str,
        *,
        run: str | None = None,
        round_number: int | None = None,
        learner: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an event."""
        self.count += 1
        self.outbox.append(Entry(self.count, kind, now, text, run, round_number, learner, data or NOTHING))

    def collect(self) -> list[Entry]:
        """The events since the last call."""
        events, self.outbox = self.outbox, []
        return events

    def message(self, event: Entry) -> m.Event:
        """An event as the contract shows it."""
        return m.Event.model_construct(
            id=event.id,
            kind=event.kind,
            at=self.iso(event.at),
            text=event.text,
            run_id=event.run,
            round=event.round,
            learner=event.learner,
            data=dict(event.data),
        )
