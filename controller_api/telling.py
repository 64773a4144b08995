"""What happened, told: to the followers of the event log, to the metrics, and as a line of the process's own log."""

from __future__ import annotations

import structlog

from services.federation import Entry, Journal

from .event_log import EventLog
from .metrics import Metrics

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
