"""Something to be done while something else takes long: most often that is over before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """A task that begins after `delay_s` seconds, unless it was cancelled before: a timer costs less than a task."""

    def __init__(self, delay_s: float, begin: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._task: asyncio.Task[T] | None = None
        self._begin = begin
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._start)

    def _start(self) -> None:
        self._task = asyncio.create_task(self._begin())

    def result(self) -> T | None:
        """What it gave, or raises what it raised; None while it is not done."""
        return self._task.result() if self._task is not None and self._task.done() else None

    def cancel(self) -> None:
        """End it, or keep it from beginning."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
