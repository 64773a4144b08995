"""Results on their way: one upload of a task at a time, and what came of one that was cut, kept a while to be resumed
(IETF draft-ietf-httpbis-resumable-upload).

The upload resource is the result's own path, so its address is known and no 104 is needed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import Request

from services.errors import UploadOffset
from services.weights import allocate

from ..clock import Clock
from .bodies import receive
from .incoming import Incoming, incoming_of

KEPT_S = 600.0  # how long an unfinished upload waits for its client


class Upload:
    """One upload: the buffer of its whole length, and how much of it has come."""

    def __init__(self, learner: str, length: int, clock: Clock) -> None:
        self._clock = clock
        self.learner = learner
        self.buffer = allocate(length)
        self.have = 0
        self.touched = clock.ran()
        self.over = False  # it was dealt with
        self.read = False  # somebody reads into the buffer now, or deals with what is in it

    async def fill(self, request: Request, count: int) -> None:
        """Append a body of `count` bytes. What came of a cut one is kept. Raises what `receive` raises."""
        self.read = True
        try:
            await receive(request, self.buffer[self.have : self.have + count])
        finally:
            self.have += min(incoming_of(request).came, count)
            self.touched = self._clock.ran()
            self.read = False

    @contextmanager
    def dealt_with(self) -> Iterator[memoryview]:
        """The whole, for the one who deals with it; nobody goes on with it afterwards."""
        self.read = True
        try:
            yield self.buffer
        finally:
            self.over, self.read = True, False


class Sender:
    """A connection on which the result of a task is sent, or waits to be."""

    def __init__(self, body: Incoming) -> None:
        self.body = body
        self.ended = asyncio.Event()


class Uploads:
    """Unfinished uploads by task, to be resumed; what nobody reads now makes room for new ones.

    First goes what was sent by those who begin much and end nothing: of the learner with the most uploads begun since
    its last whole one, and of several the oldest. One that is no longer here may still be read: it then ends on its own
    connection, whole or cut.
    """

    def __init__(self, most: int, clock: Clock | None = None) -> None:
        self._most = most
        self._clock = clock or Clock()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._begun: Counter[str] = Counter()  # by learner: uploads since its last whole one
        self._senders: dict[str, deque[Sender]] = {}  # by task; the first one sends

    @asynccontextmanager
    async def turn(self, task_id: str, body: Incoming) -> AsyncIterator[None]:
        """Be the only one who sends the result of a task. Others of it wait unread, in the order in which they came,
        until the one before has ended, or sends nothing while they wait (Rules.takeover_s)."""
        senders = self._senders.setdefault(task_id, deque())
        own = Sender(body)
        senders.append(own)
        try:
            while (first := senders[0]) is not own:
                first.body.waited_for += 1
                try:
                    await body.wait(first.ended.wait)
                finally:
                    first.body.waited_for -= 1
            yield
        finally:
            senders.remove(own)
            own.ended.set()
            if not senders:
                del self._senders[task_id]

    async def settle(self, task_id: str) -> None:
        """Stop whoever sends the result of a task, perhaps on a connection that is half-dead; what came counts.

        When it is dealt with already, wait for what comes of it.
        """
        if senders := self._senders.get(task_id):
            first = senders[0]
            first.body.stop("another connection asked how much of this result is here, to go on with it")
            await first.ended.wait()

    def begin(self, task_id: str, learner: str, length: int) -> Upload:
        """A new upload, in the place of an earlier one of the same task."""
        self._uploads.pop(task_id, None)
        now = self._clock.ran()
        for old in [key for key, one in self._uploads.items() if not one.read and now - one.touched > KEPT_S]:
            del self._uploads[old]
        while len(self._uploads) >= self._most:
            idle = [key for key, one in self._uploads.items() if not one.read] or list(self._uploads)
            del self._uploads[max(idle, key=lambda key: self._begun[self._uploads[key].learner])]
        self._begun[learner] += 1
        upload = self._uploads[task_id] = Upload(learner, length, self._clock)
        return upload

    def find(self, task_id: str) -> Upload | None:
        """The unfinished upload of a task."""
        return self._uploads.get(task_id)

    def resume(self, task_id: str, offset: int) -> Upload:
        """The upload that goes on at `offset`; raises UploadOffset when it does not."""
        upload = self._uploads.get(task_id)
        if upload is not None and not upload.over and upload.have == offset:
            return upload
        have = 0 if upload is None or upload.over else upload.have
        raise UploadOffset(
            f"the upload has {have} bytes; go on there (HEAD tells), or PUT the whole body",
            expected=have,
            got=offset,
            headers={"Upload-Offset": str(have)},
        )

    @contextmanager
    def whole(self, task_id: str, upload: Upload) -> Iterator[memoryview]:
        """All of an upload while it is dealt with; it is then forgotten."""
        try:
            with upload.dealt_with() as body:
                yield body
            del self._begun[upload.learner]
        finally:
            if self._uploads.get(task_id) is upload:
                del self._uploads[task_id]

    def keep(self, wanted: Callable[[str], bool], here: Callable[[str], object]) -> None:
        """Forget what came for tasks that are not `wanted` any more, and that nobody reads now; and what is known of
        learners that are not `here`."""
        for task_id in [key for key, one in self._uploads.items() if not (one.read or wanted(key))]:
            del self._uploads[task_id]
        for learner in [one for one in self._begun if here(one) is None]:
            del self._begun[learner]

    def end(self, task_id: str) -> None:
        """Forget an upload; whoever sends it stops."""
        self._uploads.pop(task_id, None)
        if senders := self._senders.get(task_id):
            senders[0].body.stop("this upload was ended by DELETE")
