"""Ctrl-C, SIGTERM and a closed terminal: they end everything in order, and never in the middle of tidying up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = 128 + signal.SIGINT  # what an interrupted program leaves with


@contextlib.contextmanager
def signals_stop() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt."""
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """They wait until this is over, also for a process that is started in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(number: int, frame: object) -> NoReturn:
    """Handle a signal."""
    raise KeyboardInterrupt
