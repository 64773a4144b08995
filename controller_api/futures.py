"""Futures that may be done by more than one thing."""

from __future__ import annotations

import asyncio


def complete(future: asyncio.Future[None]) -> None:
    """Let whoever waits go on, unless that has happened."""
    if not future.done():
        future.set_result(None)
