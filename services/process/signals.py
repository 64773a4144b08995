"""Signals for an event loop that has users' code beside it, and the processes that such code leaves behind.

A process that is forked from this one begins with its signal handlers and its loop's wake-up socket. With these a
signal meant for a worker of a pool (`terminate()`) would be taken for one to this process: so it begins without.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ENDING_S = 1.0  # how long what users' code started may take to end after SIGTERM
GRACE_S = 3.0  # how long a program may take to end by itself

_taken: set[int] = set()


@contextmanager
def on_signals(call: Callable[[], object], *numbers: signal.Signals) -> Iterator[None]:
    """While this lasts the running event loop calls `call` at one of these signals, and after it the handler that a
    program had for it. Outside the main thread, where Python gives no signals, nothing happens."""
    loop, before = asyncio.get_running_loop(), {number: signal.getsignal(number) for number in numbers}

    def handle(number: signal.Signals) -> None:
        call()
        own = before[number]
        if callable(own) and own is not signal.default_int_handler:
            own(number, None)

    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # Windows; not the main thread
        for number in numbers:
            loop.add_signal_handler(number, handle, number)
            _taken.add(number)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            for number in numbers:
                if loop.remove_signal_handler(number) and before[number] is not None:
                    signal.signal(number, before[number])
                _taken.discard(number)


def _begin_without() -> None:
    for number in _taken:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if _taken:
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_without)


def end_soon(status: int) -> None:
    """End this process with its children in a few seconds, if threads that its program has left keep it from ending."""

    def end() -> None:
        time.sleep(GRACE_S)
        end_children()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, none at all
                stream.flush()
        os._exit(status)

    threading.Thread(target=end, daemon=True).start()


def end_children() -> None:
    """End the processes that this one started, and theirs: SIGTERM, then SIGKILL."""
    children = _descendants(os.getpid())
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        end = time.monotonic() + ENDING_S
        while (children := [pid for pid in children if _lives(pid)]) and time.monotonic() < end:
            time.sleep(0.02)


def _descendants(pid: int) -> list[int]:
    """Children before their own; where the system does not tell, those that Python knows of."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, ValueError):
        return [one.pid for one in multiprocessing.active_children() if one.pid] if pid == os.getpid() else []
    return [*children, *(other for child in children for other in _descendants(child))]


def _lives(pid: int) -> bool:
    """Whether a process runs; one of ours that has ended is buried."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
