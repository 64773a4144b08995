"""Uploads that may be resumed after a cut (IETF draft-ietf-httpbis-resumable-upload): what came is kept a while.

The upload resource is the result's own path, so its address is known and no 104 is needed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from starlette.requests import Request

from services.errors import BodyTooSlow, UploadOffset
from services.memory import allocate

from .bodies import receive

KEPT_S = 600.0  # how long an unfinished upload waits for its client


class Upload:
    """One upload: the buffer of its whole length, and how much of it has come."""

    def __init__(self, length: int) -> None:
        self.buffer = allocate(length)
        self.have = 0
        self.touched = time.monotonic()
        self._interrupt: asyncio.Future[None] | None = None  # of whoever reads now
        self._idle = asyncio.Event()
        self._idle.set()

    def interrupt(self) -> None:
        """Whoever reads into the buffer now is to stop: nobody wants it, or another connection goes on."""
        if self._interrupt is not None and not self._interrupt.done():
            self._interrupt.set_result(None)

    async def take_over(self) -> None:
        """Stop whoever reads into the buffer now, perhaps on a connection that is half-dead; what came counts."""
        self.interrupt()
        await self._idle.wait()

    async def fill(self, request: Request, count: int) -> bool:
        """Append a body of `count` bytes; whether all of it came. What came of a cut one is kept."""
        await self.take_over()
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
            self.touched = time.monotonic()
            self._idle.set()
        return came == count


class Uploads:
    """Unfinished uploads by task; the oldest make room for new ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def begin(self, task_id: str, length: int) -> Upload:
        """A new upload, in the place of an earlier one of the same task."""
        self.end(task_id)
        now = time.monotonic()
        for old in [key for key, one in self._uploads.items() if now - one.touched > KEPT_S]:
            self.end(old)
        while len(self._uploads) >= self._most:
            self.end(next(iter(self._uploads)))
        upload = self._uploads[task_id] = Upload(length)
        return upload

    def find(self, task_id: str) -> Upload | None:
        """The unfinished upload of a task."""
        return self._uploads.get(task_id)

    async def resume(self, task_id: str, offset: int) -> Upload:
        """The upload that goes on at `offset`; raises UploadOffset when it does not."""
        upload = self._uploads.get(task_id)
        if upload is not None:
            await upload.take_over()
        have = upload.have if upload else 0
        if upload is None or have != offset:
            raise UploadOffset(
                f"the upload has {have} bytes; go on there (HEAD tells), or PUT the whole body",
                expected=have,
                got=offset,
                headers={"Upload-Offset": str(have)},
            )
        return upload

    def end(self, task_id: str) -> None:
        """Forget an upload; whoever reads it stops."""
        if upload := self._uploads.pop(task_id, None):
            upload.interrupt()
