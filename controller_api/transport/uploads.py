"""Uploads that may be resumed after a cut (IETF draft-ietf-httpbis-resumable-upload): what came is kept a while.

The upload resource is the result's own path, so its address is known and no 104 is needed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from services.errors import BodyTooSlow, UploadOffset
from services.weights import allocate

from ..clock import Clock
from .bodies import receive

KEPT_S = 600.0  # how long an unfinished upload waits for its client


class Upload:
    """One upload: the buffer of its whole length, and how much of it has come."""

    def __init__(self, length: int, clock: Clock) -> None:
        self._clock = clock
        self.buffer = allocate(length)
        self.have = 0
        self.touched = clock.ran()
        self.over = False  # it was dealt with
        self._interrupt: asyncio.Future[None] | None = None  # of whoever reads now
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def read(self) -> bool:
        """Whether somebody reads into the buffer now, or deals with what is in it."""
        return not self._idle.is_set()

    def interrupt(self) -> None:
        """Whoever reads into the buffer now is to stop: nobody wants it, or another connection goes on."""
        if self._interrupt is not None and not self._interrupt.done():
            self._interrupt.set_result(None)

    def check(self, offset: int) -> None:
        """Raise UploadOffset unless what comes next begins at `offset`."""
        if self.over or self.have != offset:
            raise _wrong(0 if self.over else self.have, offset)

    async def take_over(self) -> None:
        """Stop whoever reads into the buffer now, perhaps on a connection that is half-dead; what came counts.

        When it is dealt with already, wait for what comes of it.
        """
        while self.read:  # of several who wait for that one goes on: the next stops it in turn
            self.interrupt()
            await self._idle.wait()

    async def fill(self, request: Request, start: int, count: int) -> bool:
        """Append a body of `count` bytes at `start`; whether all of it came. What came of a cut one is kept.

        Raises UploadOffset when another connection has gone on meanwhile.
        """
        await self.take_over()
        self.check(start)
        self._idle.clear()
        self._interrupt = asyncio.get_running_loop().create_future()
        came = 0
        try:
            came = await receive(request, self.buffer[self.have : self.have + count], self._interrupt)
        except BodyTooSlow as error:
            came = error.values.get("got", 0)
            raise
        finally:
            self.have += came
            self.touched = self._clock.ran()
            self._idle.set()
        return came == count

    @contextmanager
    def dealt_with(self) -> Iterator[memoryview]:
        """The whole, for the one who deals with it; nobody else gets it meanwhile or afterwards."""
        self._idle.clear()
        try:
            yield self.buffer
        finally:
            self.over = True
            self._idle.set()


class Uploads:
    """Unfinished uploads by task, to be resumed; what nobody reads now makes room for new ones, the oldest first.

    One that is no longer here may still be read: it then ends on its own connection, whole or cut.
    """

    def __init__(self, most: int, clock: Clock | None = None) -> None:
        self._most = most
        self._clock = clock or Clock()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def begin(self, task_id: str, length: int) -> Upload:
        """A new upload, in the place of an earlier one of the same task."""
        self._uploads.pop(task_id, None)
        now = self._clock.ran()
        for old in [key for key, one in self._uploads.items() if not one.read and now - one.touched > KEPT_S]:
            del self._uploads[old]
        while len(self._uploads) >= self._most:
            idle = (key for key, one in self._uploads.items() if not one.read)
            del self._uploads[next(idle, next(iter(self._uploads)))]
        upload = self._uploads[task_id] = Upload(length, self._clock)
        return upload

    def find(self, task_id: str) -> Upload | None:
        """The unfinished upload of a task."""
        return self._uploads.get(task_id)

    async def resume(self, task_id: str, offset: int) -> Upload:
        """The upload that goes on at `offset`; raises UploadOffset when it does not."""
        upload = self._uploads.get(task_id)
        if upload is not None:
            await upload.take_over()
            upload.check(offset)
            return upload
        raise _wrong(0, offset)

    @contextmanager
    def whole(self, task_id: str, upload: Upload) -> Iterator[memoryview]:
        """All of an upload while it is dealt with; it is then forgotten. Another of its task that is read goes on."""
        try:
            with upload.dealt_with() as body:
                yield body
        finally:
            found = self._uploads.get(task_id)
            if found is upload or (found is not None and not found.read):
                del self._uploads[task_id]

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Forget what came for tasks that are not `wanted` any more, and that nobody reads now."""
        for task_id in [key for key, one in self._uploads.items() if not (one.read or wanted(key))]:
            del self._uploads[task_id]

    def end(self, task_id: str) -> None:
        """Forget an upload; whoever reads it stops."""
        if upload := self._uploads.pop(task_id, None):
            upload.interrupt()


def _wrong(have: int, offset: int) -> UploadOffset:
    return UploadOffset(
        f"the upload has {have} bytes; go on there (HEAD tells), or PUT the whole body",
        expected=have,
        got=offset,
        headers={"Upload-Offset": str(have)},
    )
