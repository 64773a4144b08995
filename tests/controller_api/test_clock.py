"""The clock: what it counts as a stall, and timers that do not count it."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from controller_api.clock import SLACK_S, TICK_S, Clock

LOOPS = {"asyncio": asyncio.DefaultEventLoopPolicy, "uvloop": uvloop.EventLoopPolicy}


@pytest.fixture(params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Either event loop: they do not call what is due in the same order."""
    return LOOPS[request.param]()


class Hand:
    """The system's clock, moved by hand; the clock under test has been touched at 100 s."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = Clock(lambda: self.now)
        self.clock.touch()


def test_time_passes_while_it_is_touched() -> None:
    """Touched every period, a little late each time, it has lost nothing."""
    hand = Hand()
    for _ in range(1000):
        hand.now += TICK_S + 0.9 * SLACK_S
        assert hand.clock.touch() == 0.0
    assert hand.clock.lost() == 0.0
    assert hand.clock.ran() == hand.now


def test_what_a_touch_is_late_is_lost() -> None:
    """Ten seconds without one: all but the period is lost, and the clock shows as much more as ran."""
    hand = Hand()
    hand.now += 10.0
    assert hand.clock.touch() == pytest.approx(10.0 - TICK_S)
    assert hand.clock.lost() == pytest.approx(10.0 - TICK_S)
    assert hand.clock.ran() == pytest.approx(100.0 + TICK_S)
    hand.now += TICK_S
    assert hand.clock.touch() == 0.0
    assert hand.clock.ran() == pytest.approx(100.0 + 2 * TICK_S)


def test_whoever_asks_first_finds_it_out() -> None:
    """The time is right before the late touch comes, which then tells of the whole stall, once."""
    hand = Hand()
    hand.now += 10.0
    assert hand.clock.ran() == pytest.approx(100.0 + TICK_S)
    hand.now += 5.0  # blocked on, in the very call that asked
    assert hand.clock.lost() == pytest.approx(15.0 - TICK_S)
    assert hand.clock.ran() == pytest.approx(100.0 + TICK_S)
    assert hand.clock.touch() == pytest.approx(15.0 - TICK_S)
    assert hand.clock.touch() == 0.0
    assert hand.clock.lost() == pytest.approx(15.0 - TICK_S)


def test_many_looks_in_one_stall_count_it_once() -> None:
    """A loop that is busy with one small thing after the other reads no sockets either."""
    hand = Hand()
    for _ in range(1000):
        hand.now += 0.001
        hand.clock.ran()
    assert hand.clock.touch() == pytest.approx(1.0 - TICK_S, abs=SLACK_S)
    assert hand.clock.lost() == pytest.approx(1.0 - TICK_S, abs=SLACK_S)


def test_it_never_runs_back() -> None:
    """Whenever it is asked, touched or not."""
    hand, before = Hand(), 0.0
    for step in (0.0, 0.01, 0.2, 0.04, 3.0, 0.0, 0.06, 0.16, 0.049, 0.15):
        hand.now += step
        assert hand.clock.ran() >= before
        before = hand.clock.ran()
        if step > 0.1:
            hand.clock.touch()


def test_without_touches_nothing_is_lost() -> None:
    """Before the first one, and after the last."""
    clock = Clock(lambda: 1e9)
    assert (clock.ran(), clock.lost()) == (1e9, 0.0)
    hand = Hand()
    hand.clock.rest()
    hand.now += 1000.0
    assert (hand.clock.ran(), hand.clock.lost()) == (hand.now, 0.0)


async def beat(clock: Clock) -> None:
    """Touch it as the controller does."""
    while True:
        clock.touch()
        await asyncio.sleep(TICK_S)


async def test_a_timer_waits_for_what_was_lost() -> None:
    """Due while the loop stood still, it rings when it has run for its time."""
    clock = Clock()
    beating = asyncio.create_task(beat(clock))
    await asyncio.sleep(0)
    rang: list[float] = []
    began = time.monotonic()
    clock.call_later(0.3, lambda: rang.append(time.monotonic() - began))
    clock.call_later(0.3, lambda: rang.append(-1.0)).cancel()
    await asyncio.sleep(0.01)
    time.sleep(0.8)  # noqa: ASYNC251 - the loop is to stand still
    await asyncio.sleep(0.01)
    assert rang == []
    await asyncio.sleep(0.6)
    beating.cancel()
    (after,) = rang
    assert 0.3 + 0.8 - TICK_S - 0.01 <= after <= 1.3


async def test_a_timer_rings_in_time() -> None:
    """Without a stall it is an ordinary one, with or without touches."""
    rang = asyncio.Event()
    began = time.monotonic()
    Clock().call_later(0.1, rang.set)
    async with asyncio.timeout(5):
        await rang.wait()
    assert time.monotonic() - began >= 0.1 - 0.002


async def test_a_timeout_gives_what_came_meanwhile_its_turn() -> None:
    """The loop stands still for longer than the timeout: what happens right after it is in time."""
    clock = Clock()
    beating = asyncio.create_task(beat(clock))
    done = asyncio.Event()
    async with clock.timeout(0.2):
        asyncio.get_running_loop().call_later(0.05, done.set)
        await asyncio.sleep(0.01)
        time.sleep(0.5)  # noqa: ASYNC251 - the loop is to stand still
        await done.wait()
    with pytest.raises(TimeoutError):
        async with clock.timeout(0.05):
            await asyncio.Event().wait()
    beating.cancel()
