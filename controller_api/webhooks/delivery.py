"""Webhooks to learners that gave a callback: a signed "poll now" (Standard Webhooks), nothing else."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import structlog

from services import __version__
from services.errors import FederationError
from services.failures import of_error
from services.federation import Member
from services.rest import FullJitter, sign

from ..settings import Settings
from .addresses import Addresses, Resolver

log = structlog.get_logger("controller")
BODY = b'{"type":"poll-now"}'
HEADERS = {"content-type": "application/json", "user-agent": f"metis-controller/{__version__}"}
AT_ONCE = 64  # webhooks under way
ATTEMPTS = 3
ATTEMPT_S = 5.0  # for one attempt: resolving, connecting, TLS, the head of the answer
CONNECT_S = 2.0  # for one of the addresses of a name
BACKOFF = FullJitter(first_s=0.5, longest_s=5.0)


class Webhooks:
    """Sends them in the background; a webhook that fails is no loss, the learner polls anyway."""

    def __init__(self, settings: Settings, resolve: Resolver | None = None) -> None:
        self._addresses = Addresses(settings, resolve)
        self._root_certificate = settings.root_certificate
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._due: dict[str, Member] = {}  # learners to be told, by id
        self._telling: dict[str, asyncio.Task[None]] = {}  # at most one task a learner
        self._group: asyncio.TaskGroup | None = None
        self._http: httpx.AsyncClient  # while it runs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connections and background tasks, for as long as the controller runs."""
        context = httpx.create_ssl_context(trust_env=False)
        if self._root_certificate:
            context.load_verify_locations(self._root_certificate)
        async with (
            httpx.AsyncClient(
                verify=context,
                trust_env=False,
                follow_redirects=False,
                limits=httpx.Limits(max_keepalive_connections=0),  # TLS was verified for one name: not for the next
                timeout=httpx.Timeout(ATTEMPT_S, connect=CONNECT_S),
            ) as self._http,
            asyncio.TaskGroup() as self._group,
        ):
            try:
                yield
            finally:
                self._group = None
                for task in self._telling.values():
                    task.cancel()

    @property
    def under_way(self) -> int:
        """How many learners are being told."""
        return len(self._telling)

    async def check(self, url: str) -> None:
        """Raise InvalidRequest for a callback to which webhooks may not go; Unavailable when its name cannot be
        resolved now."""
        await self._addresses.target(url)

    def call(self, member: Member) -> None:
        """Tell a learner that a task waits for it. Calls that come while it is being told are one webhook more."""
        if self._group is None:
            return
        self._due[member.id] = member
        if member.id not in self._telling:
            self._telling[member.id] = self._group.create_task(self._tell(member.id))

    async def _tell(self, learner_id: str) -> None:
        try:
            while learner_id in self._due:
                await self._deliver(self._due[learner_id])
        finally:
            del self._telling[learner_id]

    async def _deliver(self, member: Member) -> None:
        """One webhook, repeated a few times while its failure may pass."""
        message_id = f"msg_{secrets.token_hex(12)}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._slots, asyncio.timeout(ATTEMPT_S):
                    self._due.pop(member.id, None)  # from here on a call is for the next one
                    await self._post(member, message_id)
                return
            except (FederationError, httpx.HTTPError, TimeoutError) as error:
                if attempt == ATTEMPTS or not _may_pass(error):
                    log.info("webhook failed; the learner polls anyway", learner=member.name, why=_why(error))
                    return
            except Exception as error:  # a bug here must not end the controller's other work
                log.error("webhook failed", learner=member.name, exception=of_error(error).traceback)
                return
            await asyncio.sleep(BACKOFF.seconds(attempt))

    async def _post(self, member: Member, message_id: str) -> None:
        """POST to the first of the callback's addresses that takes the connection; the answer's body is not read."""
        if member.request.callback_url is None or member.webhook_secret is None:
            return
        target = await self._addresses.target(member.request.callback_url)
        headers = {
            "host": target.url.netloc.decode("ascii"),
            **HEADERS,
            **sign(member.webhook_secret, message_id, int(time.time()), BODY),
        }
        name = {"sni_hostname": target.url.raw_host.decode("ascii")}
        for address in target.addresses:
            url = target.url.copy_with(host=str(address))
            try:
                async with self._http.stream("POST", url, content=BODY, headers=headers, extensions=name) as answer:
                    answer.raise_for_status()
                    return
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == target.addresses[-1]:
                    raise


def _may_pass(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return not isinstance(error, FederationError) or error.retryable


def _why(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"answered {error.response.status_code}"
    return str(error) or type(error).__name__
