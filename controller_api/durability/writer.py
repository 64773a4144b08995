"""The writer of the federation's changes: as they come, many in one transaction, without holding up the event loop.

What is answered to a caller waits for `kept`. A change that cannot be written (the disk is full) stays made: it is
written when there is room again, and until then nobody is told that it happened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import structlog

from services.errors import DiskFull, FederationError, StoreUnavailable
from services.failures import of_error
from services.federation import Changes
from services.state import Batch, Recorder, Row

from ..futures import complete
from .folder import Folder
from .store_calls import HeldUp

PAUSE_S = 1.0  # between attempts to write what could not be written
TOUCH_S = 1.0  # how often the folder's lock tells that its owner is alive
log = structlog.get_logger("controller")


class Writer:
    """Of one federation and the folder that its state is kept in."""

    def __init__(
        self,
        recorder: Recorder,
        changes: Changes,
        folder: Folder,
        make_room: Callable[[], None] = lambda: None,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        """`make_room` is called when the disk is full, before the last attempt; `recovered` when what could not be
        written is."""
        self._recorder = recorder
        self._changes = changes
        self._folder = folder
        self._make_room = make_room
        self._due = asyncio.Event()
        self._busy = False
        self._waiters: list[asyncio.Future[None]] = []
        self._unwritten: Batch | None = None
        self.held_up: HeldUp | None = None
        self._failed: FederationError | None = None  # the last write, a moment ago
        self._thread = ThreadPoolExecutor(1, "writer")  # the store's calls may take all others
        self._recovered = recovered
        self._resumed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write for as long as this lasts; what is changed by its end is written then."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._write_all()), group.create_task(self._tell_alive())]
            try:
                yield
                await self._finish()
            finally:
                for one in tasks:
                    one.cancel()
        self._thread.shutdown()
        self._folder.close()

    def resumed(self) -> None:
        """What came of the time without an owner is told: it is over once that is written."""
        self._resumed.set()

    def note(self) -> None:
        """Something may have changed."""
        if self._recorder.due:
            self._due.set()

    async def kept(self) -> None:
        """Wait until every change made so far is written; raises DiskFull or StoreUnavailable while it cannot be."""
        if self.all_written:
            return
        if self._failed:
            raise type(self._failed)(self._failed.detail)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._due.set()
        await waiter

    @property
    def all_written(self) -> bool:
        """Whether there is nothing to write."""
        return not (self._changes or self._busy or self._unwritten)

    async def _write_all(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if self._failed:
                continue  # it is tried again soon
            self._busy = True
            waiters, self._waiters = self._waiters, []
            try:
                await self._write()
            except Exception as why:
                error, traceback = (why, None) if isinstance(why, FederationError) else _unexpected(why)
                log.warning("a change cannot be written", again_in_s=PAUSE_S, error=error.detail, exception=traceback)
                now = time.monotonic()
                self.held_up = HeldUp(error.detail, self.held_up.since if self.held_up else now, now + PAUSE_S)
                self._failed = error
                for one in (*waiters, *self._waiters):
                    if not one.done():
                        one.set_exception(error)
                self._waiters = []
                asyncio.get_running_loop().call_later(PAUSE_S, self._try_again)
            else:
                held_up, self.held_up = self.held_up, None
                for one in waiters:
                    complete(one)
                if held_up:
                    self._recovered()
            finally:
                self._busy = False

    def _try_again(self) -> None:
        self._failed = None
        self._due.set()

    async def _write(self) -> None:
        if self._recorder.due:
            self._unwritten = _merged(self._unwritten, self._recorder.take())
        if self._unwritten:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._put_down, self._unwritten)
            self._unwritten = None

    def _put_down(self, batch: Batch) -> None:
        try:
            self._folder.database.write(batch)
        except DiskFull:
            self._make_room()
            self._folder.database.write(batch)

    async def _finish(self) -> None:
        try:
            await self.kept()
        except FederationError as error:
            log.error("the last changes could not be written: what was acknowledged is kept", error=error.detail)

    async def _tell_alive(self) -> None:
        await self._resumed.wait()
        accounted = False
        while True:
            accounted = accounted or self.all_written
            if accounted:
                self._folder.ownership.touch()
            await asyncio.sleep(TOUCH_S)


def _merged(old: Batch | None, new: Batch) -> Batch:
    """One batch that does what both do, one after the other."""
    if old is None:
        return new
    rows: dict[tuple[str, str], Row] = {(one.kind, one.key): one for one in (*old.rows, *new.rows)}
    return Batch(list(rows.values()), [*old.forgotten, *new.forgotten])


def _unexpected(why: Exception) -> tuple[StoreUnavailable, str | None]:
    """A bug of ours as what callers are told, and its traceback for the log."""
    line, traceback = of_error(why)
    return StoreUnavailable(f"state not written: {line}"), traceback
