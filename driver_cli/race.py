"""Waiting for one thing while others go on beside it, each of which may end the wait by failing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def race(main: Coroutine[Any, Any, T], *beside: Coroutine[Any, Any, Any]) -> T:
    """The result of `main`. What runs beside it is cancelled at its end; the first error of any of them ends all."""
    first = asyncio.ensure_future(main)
    others = [asyncio.ensure_future(coroutine) for coroutine in beside]
    running: set[asyncio.Future[Any]] = {first, *others}
    try:
        while not first.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {first}:
                task.result()
        return first.result()
    finally:
        for task in (first, *others):
            task.cancel()
        await asyncio.gather(first, *others, return_exceptions=True)
