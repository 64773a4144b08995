"""A part of a model as an answer: by sendfile where connection and store allow it, else in pieces of its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.weights import MEDIA_TYPE

PIECE = 1 << 20  # bytes handed to the server at once; one 40 MB write under TLS is quadratic
ZERO_COPY = "http.response.zerocopysend"
SENDFILE = 256 * 1024  # bytes from which sendfile is worth it


class WeightsResponse(Response):
    """Bytes `first` to `first + count` of a document. `open_file` gives a file of the whole document, or None."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        document: memoryview,
        first: int,
        count: int,
        open_file: Callable[[], BinaryIO | None],
    ) -> None:
        super().__init__(None, status, {**headers, "Content-Length": str(count)}, MEDIA_TYPE)
        self.count = count
        self._part = document[first : first + count]
        self._first = first
        self._open_file = open_file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See starlette.responses.Response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        if self.count >= SENDFILE and ZERO_COPY in scope.get("extensions", {}) and (file := self._open_file()):
            with file:
                await send({"type": ZERO_COPY, "file": file, "offset": self._first, "count": self.count})
            return
        for at in range(0, self.count, PIECE):
            await send({"type": "http.response.body", "body": self._part[at : at + PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
