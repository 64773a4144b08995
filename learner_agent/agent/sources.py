"""Where tasks come from: an `AsyncIterator[Task]`, by outbound polling or by a webhook that says "poll now"."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog

from services import messages as m
from services.rest import Client

from .webhook import Listener

log = structlog.get_logger("learner")
WAIT_S = 30.0
UNASKED_S = 10.0  # how often a learner in webhook mode polls by itself: keeps its lease, heals a lost webhook


async def poll(client: Client, me: m.Learner) -> AsyncGenerator[m.Task, None]:
    """Tasks by long polls, for ever."""
    while True:
        task = await client.next_task(me.id, WAIT_S)
        if task is not None:
            yield task


class Webhook:
    """Tasks by polls that a webhook asks for; besides, a poll every `unasked_s` seconds."""

    def __init__(self, listener: Listener, unasked_s: float = UNASKED_S) -> None:
        self._listener = listener
        self._unasked_s = unasked_s

    async def __call__(self, client: Client, me: m.Learner) -> AsyncGenerator[m.Task, None]:
        """See the class. Without a secret no webhook can be believed: then by long polls."""
        self._listener.secret = me.webhook_secret
        if me.webhook_secret is None:
            log.warning("the controller gave no webhook secret: polling instead")
        rang = self._listener.rang
        while True:
            rang.clear()  # before the poll: a webhook that comes during it asks for another
            task = await client.next_task(me.id, 0 if me.webhook_secret else WAIT_S)
            if task is not None:
                yield task
            elif me.webhook_secret:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._unasked_s):
                        await rang.wait()
