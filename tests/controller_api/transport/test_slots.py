"""Slots are shared fairly by those who wait for them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from controller_api.transport import Incoming, Slots
from controller_api.transport.slots import PATIENCE
from services.errors import BodyTooSlow
from tests.controller_api.transport.test_pace import Nobody


class Holder:
    """An upload of a learner that holds a slot until it is told to end, or its body is stopped."""

    def __init__(self, slots: Slots, learner: str, given: list[str] | None = None) -> None:
        self.body = Incoming(Nobody(), 10**6, 10**6)
        self.learner = learner
        self.given = given
        self.end = asyncio.Event()
        self.has = False
        self.task = asyncio.create_task(self._hold(slots))

    async def _hold(self, slots: Slots) -> None:
        with suppress(BodyTooSlow):
            async with slots.slot(self.learner, self.body):
                self.has = True
                if self.given is not None:
                    self.given.append(self.learner)
                await self.body.wait(self.end.wait)
        self.has = False


async def settled() -> None:
    """Let everybody do what can be done now."""
    for _ in range(10):
        await asyncio.sleep(0)


async def hold(slots: Slots, *learners: str, given: list[str] | None = None) -> list[Holder]:
    """One after the other."""
    made = []
    for learner in learners:
        made.append(Holder(slots, learner, given))
        await settled()
    return made


def looked(slots: Slots, times: int = PATIENCE) -> list[Incoming]:
    """The bodies that are to make room after so many looks."""
    found: list[Incoming] = []
    for _ in range(times):
        for body, why in slots.surplus():
            assert "others wait" in why
            body.stop(why)
            found.append(body)
    return found


async def test_whoever_has_a_slot_waits_behind_those_who_have_none() -> None:
    """Anna has one of two and asked for another long before Ben and Carl: they come first, in their order."""
    slots, given = Slots(2), list[str]()
    first, _ = await hold(slots, "eve", "anna")
    waiting = await hold(slots, "anna", "ben", "carl", given=given)
    first.end.set()
    await settled()
    assert given == ["ben"]
    waiting[1].end.set()
    await settled()
    assert given == ["ben", "carl"]
    waiting[2].end.set()
    await settled()
    assert given == ["ben", "carl", "anna"]


async def test_whoever_just_gave_one_back_waits_behind_those_who_had_none() -> None:
    """Eve's next upload waited before Anna's did: her first ends, and it is Anna's turn all the same."""
    slots, given = Slots(1), list[str]()
    (first,) = await hold(slots, "eve")
    await hold(slots, "eve", "anna", given=given)
    first.end.set()
    await settled()
    assert given == ["anna"]


async def test_one_who_has_them_all_gives_up_what_is_more_than_a_fair_share() -> None:
    """Of Eve's eight the slowest goes for Anna's first; Anna gets no more than half, and nothing before a while."""
    slots = Slots(8)
    eve = await hold(slots, *["eve"] * 8)
    for number, one in enumerate(eve):
        one.body.came = 1000 + (number - 5) ** 2  # the sixth is the slowest
    anna = await hold(slots, "anna")
    assert looked(slots, PATIENCE - 1) == []
    assert looked(slots, 1) == [eve[5].body]
    assert looked(slots, 1) == []  # it is on its way
    await settled()
    assert [anna[0].has, eve[5].has] == [True, False]
    anna += await hold(slots, *["anna"] * 5)
    for _ in range(10):
        looked(slots)
        await settled()
    assert (sum(one.has for one in anna), sum(one.has for one in eve)) == (4, 4)


async def test_nobody_makes_room_for_oneself_or_with_one_slot() -> None:
    """Eve's own ninth stops none of her eight; learners with one each keep it."""
    slots = Slots(2)
    await hold(slots, *["eve"] * 3)
    assert looked(slots, 5) == []
    slots = Slots(2)
    await hold(slots, "anna", "ben", "carl")
    assert looked(slots, 5) == []


async def test_what_is_whole_makes_no_room() -> None:
    """A body that is dealt with is not stopped: of two the one that is still read is."""
    slots = Slots(2)
    whole, reading = await hold(slots, "eve", "eve")
    whole.body.end()
    reading.body.came = 10**5
    await hold(slots, "anna")
    assert looked(slots) == [reading.body]


async def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    """Cancelled or stopped while it waits, or in the moment in which it is given the slot: the next one gets it."""
    slots, given = Slots(1), list[str]()
    (first,) = await hold(slots, "eve")
    waiting = await hold(slots, "anna", "ben", "carl", "dora", given=given)
    waiting[0].task.cancel()
    waiting[1].body.stop("nobody wants it")
    await settled()
    first.end.set()
    await asyncio.sleep(0)  # Eve has given it back
    waiting[2].task.cancel()
    await settled()
    assert given[-1] == "dora"
    waiting[3].end.set()
    await settled()
    async with AsyncExitStack() as all_of_them, asyncio.timeout(1):
        await all_of_them.enter_async_context(slots.slot("anna", waiting[3].body))


async def test_others_wait() -> None:
    """Not oneself."""
    slots = Slots(1)
    await hold(slots, "eve", "eve")
    assert not slots.others_wait("eve")
    await hold(slots, "anna")
    assert slots.others_wait("eve")


@pytest.mark.parametrize("count", [1, 3])
async def test_no_more_than_the_slots_at_once(count: int) -> None:
    """However many ask."""
    slots = Slots(count)
    all_of_them = await hold(slots, *[f"learner {number}" for number in range(10)])
    seen = []
    for _ in range(10):
        having = [one for one in all_of_them if one.has]
        seen.append(len(having))
        if having:
            having[0].end.set()
        await settled()
    assert max(seen) == count
    assert all(one.task.done() for one in all_of_them)


async def test_those_who_were_slow_share_one_slot() -> None:
    """However many there are, others find the rest free; and they are not stopped for one of them who waits."""
    slots = Slots(3)
    for name in ("eve", "fay", "gus"):
        slots.note_slow(name)
    eve, fay, gus, *_ = await hold(slots, "eve", "fay", "gus", "gus")
    assert (eve.has, fay.has, gus.has) == (True, False, False)
    anna, ben = await hold(slots, "anna", "ben")
    assert (anna.has, ben.has) == (True, True)
    assert looked(slots, 10) == []
    (carl,) = await hold(slots, "carl")
    ben.end.set()
    await settled()
    assert (carl.has, fay.has) == (True, False)
    eve.end.set()
    await settled()
    assert (fay.has, gus.has) == (True, False)


async def test_it_is_forgotten_who_was_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner whose network was bad for a while is like all others later."""
    slots = Slots(2)
    monkeypatch.setattr("controller_api.transport.slots.SLOW_S", 0.05)
    slots.note_slow("eve")
    slots.note_slow("fay")
    await hold(slots, "eve")
    await asyncio.sleep(0.06)
    (fay,) = await hold(slots, "fay")
    assert fay.has
