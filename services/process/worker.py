"""Threads for users' own code, so that the event loop stays free; they never keep a process from ending."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """`count` daemon threads over one queue: at most so many calls run at once."""

    def __init__(self, count: int = 1, name: str = "learner") -> None:
        """`name` is what the threads are called, and errors that are not exceptions are told to come from."""
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for index in range(count):
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True).start()

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a call in a thread, in a copy of this context; its exception is raised here."""
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        done: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: Exception | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: T | None = None
            error: Exception | None = None
            try:
                result = context.run(call, *arguments)
            except BaseException as raised:
                error = self._carried(raised)
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(finish, result, error)

        self._calls.put(work)
        return await done

    def _work(self) -> None:
        while True:
            self._calls.get()()

    def _carried(self, error: BaseException) -> Exception:
        """The error as a future may carry it: sys.exit() in a user's code must not end the program."""
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            return error
        carried = RuntimeError(f"the {self._name} raised {error!r}")
        carried.__cause__ = error
        return carried
