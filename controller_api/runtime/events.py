"""Events: the newest are kept for followers that each resume where they were, and told to the metrics and the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

import structlog

from services.federation import Entry, Journal

from .metrics import Metrics

KEPT = 10_000
FLEETING = ("task-progress",)
QUIET_S = 15.0  # a follower hears at least a sign of life this often


class EventLog:
    """Events in order of their ids; the oldest are dropped."""

    def __init__(self, before: int = 0) -> None:
        """`before`: events of earlier processes, which are gone."""
        self._before = before
        self._events: deque[Entry] = deque(maxlen=KEPT)
        self._more = asyncio.Event()
        self._closed = False

    @property
    def last_id(self) -> int:
        """Id of the newest event; 0 when there was none."""
        return self._events[-1].id if self._events else self._before

    def append(self, events: Iterable[Entry]) -> None:
        """Add events and wake the followers."""
        self._events.extend(events)
        self._wake()

    def close(self) -> None:
        """End every follower's stream."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    def after(self, event_id: int) -> list[Entry]:
        """Events newer than `event_id`, oldest first."""
        newest = self.last_id
        count = min(len(self._events), max(0, newest - event_id))
        return [self._events[i] for i in range(len(self._events) - count, len(self._events))]

    async def follow(self, event_id: int) -> AsyncIterator[list[Entry]]:
        """Batches of events after `event_id`, for ever; an empty batch is a sign of life.

        What is replayed leaves out progress: it was of use in its moment only.
        """
        if event_id > self.last_id:
            event_id = 0  # the log of an earlier process: begin anew
        replay = [event for event in self.after(event_id) if event.kind not in FLEETING]
        event_id = self.last_id
        if replay:
            yield replay
        while not self._closed:
            more = self._more
            batch = self.after(event_id)
            if batch:
                event_id = batch[-1].id
                yield batch
                continue
            try:
                async with asyncio.timeout(QUIET_S):
                    await more.wait()
            except TimeoutError:
                yield []


QUIET = ("task-progress", "task-offered", "update-accepted", "run-state")  # no line in the log
log = structlog.get_logger("controller")


def tell(journal: Journal, events: EventLog, metrics: Metrics) -> list[Entry]:
    """What happened since the last call."""
    if not journal.outbox:
        return []
    told = journal.collect()
    events.append(told)
    for event in told:
        metrics.note(event)
        (log.debug if event.kind in QUIET else log.info)(event.kind, text=event.text)
    return told
