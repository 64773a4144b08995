"""Schedulers by the name that a user types: when a round closes."""

from __future__ import annotations

from collections.abc import Callable

from .asynchronous import Asynchronous
from .base import Close, Fail, Pending, RoundView, Scheduler, Verdict, Wait, missing, streams, wait_text, waiting_text
from .semi_synchronous import PER_BATCH, PER_EPOCH, SemiSynchronous, budgets
from .synchronous import Synchronous

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "Synchronous": Synchronous,
    "SemiSynchronous": SemiSynchronous,
    "Asynchronous": Asynchronous,
}

__all__ = [
    "PER_BATCH",
    "PER_EPOCH",
    "SCHEDULERS",
    "Asynchronous",
    "Close",
    "Fail",
    "Pending",
    "RoundView",
    "Scheduler",
    "SemiSynchronous",
    "Synchronous",
    "Verdict",
    "Wait",
    "budgets",
    "missing",
    "streams",
    "wait_text",
    "waiting_text",
]
