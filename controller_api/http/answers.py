"""What holds for every answer, whoever makes it: no cache keeps it and no browser guesses its type, unless it says
otherwise itself; and callers that were refused stand in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import structlog
from starlette.types import Message, Scope, Send

from .gate import find

NO_STORE = (b"cache-control", b"no-store")
NOSNIFF = (b"x-content-type-options", b"nosniff")
REFUSALS = (401, 403)
GROUPS = 64  # of refused calls that wait to be told; what comes above them is one more
OTHERS = "others"
EVERY_S = 1.0
log = structlog.get_logger("controller")


class Refused:
    """Calls that were refused for their token, in groups of which one is told each second: whoever tries tokens
    without end, from however many addresses, fills neither disk nor memory by it."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str, int], int] = {}  # by peer, path and status
        self._timer: asyncio.TimerHandle | None = None

    def note(self, scope: Scope, status: int) -> None:
        """One more."""
        found = find(scope["path"])
        group = (scope["client"][0] if scope.get("client") else "unknown", found[0] if found else "none", status)
        if group not in self._calls and len(self._calls) >= GROUPS:
            group = (OTHERS, OTHERS, status)
        self._calls[group] = self._calls.get(group, 0) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._tell)

    def _tell(self) -> None:
        """The group that has waited longest."""
        peer, path, status = group = next(iter(self._calls))
        log.warning("refused", peer=peer, path=path, status=status, calls=self._calls.pop(group))
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._tell) if self._calls else None


class Answer:
    """That of one request. It is thin: thousands of polls have one."""

    __slots__ = ("_refused", "_scope", "_send")

    def __init__(self, scope: Scope, send: Send, refused: Refused) -> None:
        self._scope, self._send, self._refused = scope, send, refused

    def send(self, message: Message) -> Awaitable[None]:
        """See ASGI."""
        if message["type"] == "http.response.start":
            headers = message["headers"]
            names = [name for name, _ in headers]
            if NO_STORE[0] not in names:
                headers.append(NO_STORE)
            if NOSNIFF[0] not in names:
                headers.append(NOSNIFF)
            if message["status"] in REFUSALS:
                self._refused.note(self._scope, message["status"])
        return self._send(message)
