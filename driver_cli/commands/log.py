"""The federation's log as far back as the controller keeps it, and from there on if it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from services import messages as m
from services.rest import Client

QUIET_S = 1.0  # the stream has no end: what is held has been told when nothing came for so long


async def events(client: Client, follow: bool) -> AsyncGenerator[m.Event, None]:
    """Every event that is held, oldest first; with `follow` those to come as well, for ever."""
    await client.federation()  # a controller that is not there is found out before the quiet is measured
    async with contextlib.aclosing(_held(client)) as source:
        while True:
            try:
                async with asyncio.timeout(None if follow else QUIET_S):
                    event = await anext(source)
            except TimeoutError:
                return
            yield event


async def _held(client: Client) -> AsyncGenerator[m.Event, None]:
    """The log from its beginning, as a generator that can be closed."""
    async for event in client.events(after=0):
        yield event
