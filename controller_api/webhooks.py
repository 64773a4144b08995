"""Webhooks to learners that gave a callback: a signed "poll now" (Standard Webhooks), nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.roster import Member

from .settings import Settings


class Webhooks:
    """Sends them in the background; a webhook that fails is no loss, the learner polls anyway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connections and background tasks, for as long as the controller runs."""
        yield

    async def check(self, url: str) -> None:
        """Raise InvalidRequest for a callback to which webhooks may not go."""

    def call(self, member: Member) -> None:
        """Tell a learner that a task waits for it."""
