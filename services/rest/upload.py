"""A result on its way up: whole by PUT, after a cut what is missing by PATCH, in parts where a proxy in between takes
no more at once, and the other way where it refuses one of the two (IETF draft-ietf-httpbis-resumable-upload).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from ..errors import FederationError, ProxyRefused, Unreachable, UploadOffset
from ..weights import MEDIA_TYPE, Buffer
from .exchange import Answer, Request

RESUMED = 1 << 20  # bytes: a smaller upload is sent again as a whole
SMALLEST = 1 << 16  # bytes of a part: a proxy that does not take so much takes none
LIMIT_S = 300.0  # of an exchange


class Passage:
    """What a proxy in between lets through, as far as it was met by the uploads of one client."""

    def __init__(self) -> None:
        self.most: int | None = None  # bytes of a body
        self.barred: dict[str, ProxyRefused] = {}  # methods

    def forget(self) -> None:
        """Nothing is known: it may have been mended."""
        self.most = None
        self.barred.clear()


class Upload:
    """One upload; `exchange` carries a request out, or raises what refused it."""

    def __init__(
        self,
        url: str,
        parts: Sequence[Buffer],
        headers: Mapping[str, str],
        exchange: Callable[[Request], Awaitable[Answer]],
        passage: Passage,
    ) -> None:
        self._url = url
        self._parts = parts
        self._size = sum(memoryview(part).nbytes for part in parts)
        self._headers = dict(headers)
        self._exchange = exchange
        self._passage = passage
        self._have = 0  # bytes that the controller has
        self._unsure = False  # of that: the last exchange ended without a word of it
        self._ours = False  # what it has is of this body, and not what an earlier process of this learner sent
        self._sent = ("", 0)  # the method that was tried last, and bytes of its body
        self._refused: dict[str, ProxyRefused] = {}  # by method

    async def step(self) -> Answer | None:
        """Send what comes next; the controller's answer to the last of it, None before."""
        if self._unsure:
            await self._ask()
        barred, most = self._passage.barred, self._passage.most or self._size
        if "PATCH" in barred or ("PUT" not in barred and self._have == 0 and self._size <= most):
            return await self._put()
        return await self._patch(min(most, self._size - self._have))

    def give_way(self, refusal: ProxyRefused) -> None:
        """Go on another way: in smaller parts, or by the other method. Raises the refusal when there is none."""
        way, (method, size) = self._passage, self._sent
        if method == "PUT":  # which may have come nowhere
            self._have, self._unsure, self._ours = 0, False, False
        self._refused[method] = refusal
        if refusal.values["status"] == 413 and size // 2 >= SMALLEST and "PATCH" not in way.barred:
            way.most = size // 2
            return
        way.barred[method] = refusal
        self._refused |= way.barred
        if len(self._refused) > 1:
            way.forget()
            said = "; ".join(self._refused[each].detail for each in sorted(self._refused, reverse=True))
            raise ProxyRefused(said, **refusal.values) from refusal

    async def _ask(self) -> None:
        """Where to go on. An answer to HEAD does not say what is wrong: that to what follows will."""
        self._have = 0
        if self._ours:
            try:
                answer = await self._exchange(Request("HEAD", self._url, self._headers))
            except FederationError as error:
                if error.retryable:
                    raise
                self._ours = False
            else:
                told = answer.headers.get("upload-offset", "0")
                self._have = int(told) if told.isdigit() else 0
        self._unsure = False

    async def _put(self) -> Answer:
        self._sent, self._have = ("PUT", self._size), 0
        self._unsure = self._ours = resumed = self._size >= RESUMED
        headers = {**self._headers, "Content-Type": MEDIA_TYPE}
        return await self._exchange(Request("PUT", self._url, headers, self._parts, limit_s=LIMIT_S, once=resumed))

    async def _patch(self, count: int) -> Answer | None:
        self._sent, self._unsure = ("PATCH", count), True
        last = self._have + count == self._size
        headers = {
            **self._headers,
            "Content-Type": "application/partial-upload",
            "Upload-Offset": str(self._have),
            "Upload-Complete": "?1" if last else "?0",
            "Upload-Length": str(self._size),
        }
        part = _cut(self._parts, self._have, count)
        try:
            answer = await self._exchange(Request("PATCH", self._url, headers, part, limit_s=LIMIT_S, once=True))
        except UploadOffset as error:  # bytes of it came over a connection that died, or it made room for another
            if not self._ours:
                await self._exchange(Request("DELETE", self._url, self._headers))
            raise Unreachable(error.detail, url=self._url) from error
        self._have, self._unsure, self._ours = self._have + count, False, True
        return answer if last else None


def _cut(parts: Sequence[Buffer], skip: int, count: int) -> list[Buffer]:
    """`count` bytes that follow the first `skip`."""
    rest: list[Buffer] = []
    for part in parts:
        view = memoryview(part).cast("B")
        if piece := view[skip : skip + count]:
            rest.append(piece)
            count -= len(piece)
        skip = max(0, skip - len(view))
    return rest
