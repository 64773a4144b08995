"""The federation's log: one ordered list of events, each with a sentence for people and data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from . import messages as m


class Journal:
    """Numbers events and leaves them in `outbox`. `epoch` is the wall-clock time at which the monotonic clock was 0."""

    def __init__(self, epoch: float) -> None:
        self.outbox: list[m.Event] = []
        self._epoch = epoch
        self._count = 0

    def iso(self, now: float) -> str:
        """ISO 8601 in UTC of a moment on the monotonic clock."""
        return datetime.fromtimestamp(self._epoch + now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

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
        self._count += 1
        self.outbox.append(
            m.Event.model_construct(
                id=self._count,
                kind=kind,
                at=self.iso(now),
                text=text,
                run_id=run,
                round=round_number,
                learner=learner,
                data=dict(data or {}),
            )
        )

    def collect(self) -> list[m.Event]:
        """The events since the last call."""
        events, self.outbox = self.outbox, []
        return events
