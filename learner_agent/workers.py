"""Threads in which learners work, so that the event loop stays free; they never keep a process from ending."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """`count` daemon threads over one queue: at most so many calls run at once."""

    def __init__(self, count: int = 1) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for index in range(count):
            threading.Thread(target=self._work, name=f"learner-{index}", daemon=True).start()

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a call in a thread, in a copy of this context; its exception is raised here."""
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = context.run(call, *arguments)
            except StopIteration as stopped:  # a future cannot carry it
                error = RuntimeError(f"StopIteration: {stopped}")
            except BaseException as raised:
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._calls.put(work)
        return await done

    def _work(self) -> None:
        while True:
            self._calls.get()()
