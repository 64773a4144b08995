"""Events: the newest are kept for followers that each resume where they were, and told to the metrics and the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from heapq import merge
from itertools import takewhile
from operator import attrgetter

import structlog

from services.federation import Entry, Journal

from .metrics import Metrics

KEPT = 10_000  # beside those of which a learner may cause as many as it likes:
FLEETING = "task-progress"  # of use in its moment only
OFTEN_KEPT = {FLEETING: 1000, "learner-joined": 2000, "learner-left": 2000}
QUIET_S = 15.0  # a follower hears at least a sign of life this often


class EventLog:
    """Events in order of their ids; the oldest are dropped."""

    def __init__(self, before: int = 0) -> None:
        """`before`: events of earlier processes, which are gone."""
        self._last_id = before
        self._events: deque[Entry] = deque(maxlen=KEPT)
        self._often: dict[str, deque[Entry]] = {kind: deque(maxlen=kept) for kind, kept in OFTEN_KEPT.items()}
        self._more = asyncio.Event()
        self._closed = False

    @property
    def last_id(self) -> int:
        """Id of the newest event; 0 when there was none."""
        return self._last_id

    def append(self, events: Iterable[Entry]) -> None:
        """Add events and wake the followers."""
        for event in events:
            self._often.get(event.kind, self._events).append(event)
            self._last_id = event.id
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
        newer = (_newer(one, event_id) for one in (self._events, *self._often.values()))
        return list(merge(*newer, key=attrgetter("id")))

    async def follow(self, event_id: int) -> AsyncIterator[list[Entry]]:
        """Batches of events after `event_id`, for ever; an empty batch is a sign of life.

        What is replayed leaves out progress: it was of use in its moment only.
        """
        if event_id > self.last_id:
            event_id = 0  # the log of an earlier process: begin anew
        replay = [event for event in self.after(event_id) if event.kind != FLEETING]
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


def _newer(events: deque[Entry], event_id: int) -> list[Entry]:
    """Those of the end, whose ids are greater."""
    return [*takewhile(lambda event: event.id > event_id, reversed(events))][::-1]


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
