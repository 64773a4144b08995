"""Waiting for one thing while others go on beside it."""

from __future__ import annotations

import asyncio

import pytest

from driver_cli import exits
from driver_cli.race import race


async def test_race_gives_the_result_and_cancels_what_ran_beside() -> None:
    """Nothing goes on when the main thing is done."""
    cancelled = asyncio.Event()

    async def beside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    assert await race(main(), beside()) == 7
    assert cancelled.is_set()


async def test_race_ends_with_the_error_of_what_runs_beside() -> None:
    """A failure beside the main thing is not waited out; one that ends well is."""

    async def failing() -> None:
        raise exits.ChildDied("gone")

    async def fine() -> None:
        return None

    with pytest.raises(exits.ChildDied, match="gone"):
        await race(asyncio.Event().wait(), fine(), failing())
