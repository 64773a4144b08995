"""How fast a body must come, in numbers worked out by hand; whoever waits for a body can be stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from controller_api.settings import Settings
from controller_api.transport import Incoming, Pace, Rules, Slots, incoming, pace
from services.errors import BodyTooSlow, TooLarge

RULES = Rules.of(Settings())  # 16,000 bytes per second; 30 s; 60 s; silence 60 s, 2 s when another waits
LARGE = 2_000_000  # bytes: 125 s at the slowest


class Nobody:
    """Watches nothing."""

    def watch(self, body: Incoming) -> None:
        """See Watcher."""

    def forget(self, body: Incoming) -> None:
        """See Watcher."""


def coming(seconds: float, rate: float, size: int | None = LARGE, then: float = 0.0) -> Incoming:
    """A body of which `rate` bytes came each second for so long, and then nothing."""
    body = Incoming(Nobody(), size, 10**9)
    body.look(RULES.window_s)
    for number in range(round((seconds + then) / 0.5)):
        if number < seconds / 0.5:
            body.came += round(rate / 2)
        body.look(RULES.window_s)
    return body


@pytest.mark.parametrize(
    ("seconds", "rate", "others_wait", "slow"),
    [
        (30.0, 16_000, True, False),  # 480,000 bytes in 30 s are enough
        (30.0, 15_998, True, True),
        (30.0, 15_998, False, False),  # nobody is kept waiting
        (29.5, 1_600, True, False),  # not yet 30 s
        (30.0, 1_600, True, True),
        (124.5, 1_600, False, False),
        (125.0, 1_600, False, True),  # 2,000,000 / 16,000
    ],
)
def test_the_slowest_pace(seconds: float, rate: float, others_wait: bool, slow: bool) -> None:
    """Over 30 s while others wait, over the whole in any case."""
    assert bool(RULES.broken(coming(seconds, rate), others_wait)) == slow


def test_what_came_before_does_not_excuse_the_last_30_s() -> None:
    """100 s fast and 30 s slow: too slow while others wait."""
    body = coming(10, 100_000, 10**8)
    for _ in range(60):
        body.came += 800
        body.look(RULES.window_s)
    told = RULES.broken(body, True)
    assert told == "48000 bytes came in the last 30 s; while others wait 16000 bytes per second are the least"
    assert RULES.broken(body, False) is None


@pytest.mark.parametrize("size", [100, None])
def test_a_small_body_and_one_in_chunks_have_60_s(size: int | None) -> None:
    """A body of unknown length has as long as what came of it takes."""
    assert RULES.broken(coming(59.5, 2, size), False) is None
    assert RULES.broken(coming(60, 2, size), False) == (
        "120 bytes came in 60 s; after 60 s 16000 bytes per second are the least"
    )
    assert RULES.broken(coming(100, 16_100, None), False) is None


def test_silence() -> None:
    """60 s; 2 s when another connection waits to send the same."""
    assert RULES.broken(coming(1, 100_000, 10**8, then=59.5), False) is None
    assert RULES.broken(coming(1, 100_000, 10**8, then=60), False) == "nothing came for 60 s"
    body = coming(1, 100_000, 10**8, then=2)
    assert RULES.broken(body, False) is None
    body.waited_for = 1
    assert "another connection" in str(RULES.taken_over(body))
    body = coming(1, 100_000, 10**8, then=1.5)
    body.waited_for = 1
    assert RULES.taken_over(body) is None


# ---- stopping
async def test_whoever_waits_is_told_why() -> None:
    """At once, and again at the next wait; what to do stands in it."""
    body = Incoming(Nobody(), 10, 10)
    waiting = asyncio.create_task(body.wait(asyncio.Event().wait))
    await asyncio.sleep(0)
    body.stop("nothing came for 2 s")
    with pytest.raises(BodyTooSlow, match=r"nothing came for 2 s: send it again; .* HEAD says") as told:
        await waiting
    assert told.value.values == {"got": 0, "expected": 10}
    with pytest.raises(BodyTooSlow):
        await body.wait(asyncio.Event().wait)


async def test_a_whole_body_is_not_stopped() -> None:
    """What is dealt with goes on."""
    body = Incoming(Nobody(), 10, 10)
    body.end()
    body.stop("too late")
    await body.wait(lambda: asyncio.sleep(0))


async def test_a_body_beyond_its_limit_is_told_while_it_comes() -> None:
    """The lower limit of two counts."""
    body = Incoming(Nobody(), None, 100)
    body.narrow(5, ", for a reason")
    body.narrow(50, ", for none")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"abc", "more_body": True}

    read = body.reader(receive)
    await read()
    with pytest.raises(TooLarge, match="longer than the limit of 5 bytes, for a reason"):
        await read()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Looks that come ten times as often."""
    for module in (incoming, pace):
        monkeypatch.setattr(module, "LOOK_S", 0.05)
    return iter(())


@pytest.mark.usefixtures("often")
async def test_a_standstill_of_the_controller_counts_against_no_body() -> None:
    """Twice the longest silence, in which nobody could read: one look. Then the silence counts."""
    watcher = Pace(Rules(1, 30, 60, 1.0, 1.0), Slots(1))
    body = Incoming(watcher, 100, 100)
    body.begin()
    waiting = asyncio.create_task(body.wait(asyncio.Event().wait))
    await asyncio.sleep(0.2)
    time.sleep(2)  # noqa: ASYNC251 - it stands still
    await asyncio.sleep(0.06)
    assert not body.stopped
    assert 0 < body.silent_s < 1
    async with asyncio.timeout(5):
        with pytest.raises(BodyTooSlow):
            await waiting


@pytest.mark.usefixtures("often")
async def test_nothing_is_looked_at_when_no_body_is_read() -> None:
    """The timer ends with the last body, and begins with the next."""
    watcher = Pace(RULES, Slots(1))
    body = Incoming(watcher, 100, 100)
    body.begin()
    await asyncio.sleep(0.08)
    assert watcher._timer is not None
    body.end()
    await asyncio.sleep(0.1)
    assert watcher._timer is None
