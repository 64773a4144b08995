"""What begins after a while, if it is still wanted by then."""

from __future__ import annotations

import asyncio

import pytest

from learner_agent.agent.heartbeats import Delayed


async def test_it_begins_after_its_delay_and_gives_its_result() -> None:
    """Not before."""
    begun: list[float] = []

    async def work() -> str:
        begun.append(asyncio.get_running_loop().time())
        return "done"

    start = asyncio.get_running_loop().time()
    delayed = Delayed(0.05, work)
    await asyncio.sleep(0)
    assert (begun, delayed.result()) == ([], None)
    await asyncio.sleep(0.5)
    assert delayed.result() == "done"
    assert begun[0] - start >= 0.045


async def test_cancelled_before_it_never_begins_and_after_it_ends() -> None:
    """Either way nothing goes on."""
    events: list[str] = []

    async def work() -> None:
        events.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            events.append("ended")

    Delayed(0.01, work).cancel()
    await asyncio.sleep(0.05)
    assert events == []
    running = Delayed(0.0, work)
    await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.sleep(0.02)
    assert events == ["begun", "ended"]
    with pytest.raises(asyncio.CancelledError):
        running.result()


async def test_what_it_raises_is_raised_by_whoever_asks() -> None:
    """A failure is not lost."""

    async def work() -> None:
        raise ValueError("no")

    delayed = Delayed(0.0, work)
    await asyncio.sleep(0.02)
    with pytest.raises(ValueError, match="no"):
        delayed.result()
