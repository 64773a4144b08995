"""The learner's ear in webhook mode: a small HTTP server that takes signed webhooks ("poll now") and wakes the agent.

It believes nobody without the secret that came with the enrolment, and even then does no more than poll.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from services import ServerParams
from services.rest import ID, TOLERANCE_S, is_genuine

log = structlog.get_logger("learner")
PATH = "/poll-now"
MAX_BODY = 4096  # bytes
MAX_HEAD = 16384  # bytes
BODY_S = 5.0  # how long a body may take
CONNECTION_S = 10.0  # how long a connection may live: a webhook takes one of its own
CONNECTIONS = 64  # at once
EVERYWHERE = ("", "0.0.0.0", "::")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Listener:
    """Listens while it is entered (`async with`); `rang` is set by each genuine webhook. An ASGI application.

    `secret` is None until the controller gave one: nothing is genuine before.
    """

    def __init__(
        self, params: ServerParams, callback_url: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`callback_url` is for a learner that the controller reaches otherwise than by `params`, by a proxy say."""
        self.rang = asyncio.Event()
        self.secret: str | None = None
        self._params = params
        self._callback_url = callback_url
        self._clock = clock
        self._taken: OrderedDict[str, float] = OrderedDict()  # ids of webhooks, and when they are too old anyway
        self._paths = {PATH, unquote(urlsplit(callback_url).path) or "/"} if callback_url else {PATH}

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError, saying where, when that cannot be."""
        given = self._params
        config = uvicorn.Config(
            self,
            http=_ShortLived,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_graceful_shutdown=1,
            ssl_certfile=given.server_certificate,
            ssl_keyfile=given.private_key,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise OSError(f"TLS for webhooks, with {given.server_certificate}, {given.private_key}: {error}") from error
        self._socket = _bind(given)
        self._server = uvicorn.Server(config)
        # Not serve(): that takes over the signals, by which the agent leaves.
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup([self._socket])
        log.info("listening for webhooks", url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.shutdown([self._socket])

    @property
    def url(self) -> str:
        """Where the controller is to send webhooks."""
        if self._callback_url:
            return self._callback_url
        host = socket.gethostname() if self._params.hostname in EVERYWHERE else self._params.hostname
        return replace(self._params, hostname=host, port=self._socket.getsockname()[1]).url + PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with no body."""
        status = await self._judge(scope, receive)
        headers = [(b"content-length", b"0")] if status != 204 else []
        headers += [(b"allow", b"POST")] if status == 405 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    async def _judge(self, scope: Scope, receive: Receive) -> int:
        """The status of the answer; 204 for a genuine webhook."""
        if scope["path"] not in self._paths:
            return 404
        if scope["method"] != "POST":
            return 405
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if int(headers.get("content-length", 0)) > MAX_BODY:
            return 413
        try:
            async with asyncio.timeout(BODY_S):
                body = await _read(receive)
        except TimeoutError:
            return 408
        if body is None:
            return 413
        now = self._clock()
        if self.secret is None or not is_genuine(self.secret, headers, body, now):
            return 401
        if self._is_new(headers[ID], now):
            self.rang.set()
        return 204

    def _is_new(self, message_id: str, now: float) -> bool:
        """False for a webhook that came before: its reply was lost, or someone replays it."""
        while self._taken and next(iter(self._taken.values())) < now:
            self._taken.popitem(last=False)
        if message_id in self._taken:
            return False
        self._taken[message_id] = now + 2 * TOLERANCE_S
        return True


class _ShortLived(H11Protocol):
    """A connection that is closed after a while whatever it does: idle ones do not pile up."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self.loop.call_later(CONNECTION_S, transport.abort)


def _bind(params: ServerParams) -> socket.socket:
    """A listening socket at the first address of the host that can be had."""
    where = f"{params.hostname}:{params.port}"
    failure: OSError | None = None
    host, stream = params.hostname or None, socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(host, params.port, type=stream, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OSError(f"cannot listen for webhooks on {where}: {error.strerror}") from error
    for family, _, _, _, address in found:
        try:
            return socket.create_server(address[:2], family=family)
        except OSError as error:
            failure = error
    raise OSError(f"cannot listen for webhooks on {where}: {failure.strerror if failure else 'no address'}")


async def _read(receive: Receive) -> bytes | None:
    """The body; None when it is longer than MAX_BODY, or was cut."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or len(body) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return body
