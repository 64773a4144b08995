"""Where tasks come from: an `AsyncIterator[Task]`, by outbound polling or by a webhook that says "poll now"."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services import messages as m
from services.rest import Client

WAIT_S = 30.0


async def poll(client: Client, me: m.Learner) -> AsyncGenerator[m.Task, None]:
    """Tasks by long polls, for ever."""
    while True:
        task = await client.next_task(me.id, WAIT_S)
        if task is not None:
            yield task
