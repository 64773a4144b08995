"""Calls of a store that is away, or full: repeated within a bound, or owed until it is back, each once and in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from controller_api.durability import StoreCalls, store_calls
from services.errors import AggregationFailed, DiskFull, FederationError, StoreUnavailable, UnknownModel
from services.store import InMemory
from tests.conftest import until


class Store(InMemory):
    """Notes what it was asked; while it is away it refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.error: FederationError = StoreUnavailable("away")
        self.done: list[str] = []
        self.asked = 0

    def upper(self, key: str) -> str:
        """A call."""
        away = self.away  # before anybody sees that it was asked
        self.asked += 1
        if away:
            raise self.error
        if key == "unknown":
            raise UnknownModel("there is no such model")
        self.done.append(key)
        return key.upper()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(store_calls, "FULL_PAUSE_S", 0.01)


async def test_a_call_is_repeated_until_the_store_is_back() -> None:
    """What waits for it gets the result, once."""
    store = Store()
    store.away = True
    task = asyncio.create_task(StoreCalls(store, asyncio.Event()).repeat(store.upper, "a"))

    async def asked() -> bool:
        return store.asked > 0

    await until(asked, 5)
    store.away = False
    assert await task == "A"
    assert store.done == ["a"]
    assert store.asked > 1


async def test_patience_ends() -> None:
    """A store that stays away is told after the last pause; other errors at once; at the process's end at once."""
    store, stopped = Store(), asyncio.Event()
    store.away = True
    with pytest.raises(StoreUnavailable):
        await StoreCalls(store, stopped).repeat(store.upper, "a")
    assert store.asked == 4

    def fail() -> None:
        store.asked += 1
        raise AggregationFailed("no quorum")

    with pytest.raises(AggregationFailed):
        await StoreCalls(store, stopped).repeat(fail)
    assert store.asked == 5
    stopped.set()
    with pytest.raises(StoreUnavailable):
        await StoreCalls(store, stopped).repeat(store.upper, "a")
    assert store.asked == 6


async def test_a_full_disk_is_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has to make room: the call is repeated for an hour, not for the pauses alone, and says until when."""
    store = Store()
    store.away, store.error = True, DiskFull("no space left")
    calls = StoreCalls(store, asyncio.Event())
    task = asyncio.create_task(calls.repeat(store.upper, "a"))

    async def asked_often() -> bool:
        return store.asked > 10

    await until(asked_often, 5)
    assert calls.held_up is not None
    assert calls.held_up.until == pytest.approx(calls.held_up.since + 3600)
    assert "no space left; tries again in 0 s, the run fails in 3600 s" in calls.held_up.text(calls.held_up.since)
    store.away = False
    assert await task == "A"
    assert calls.held_up is None
    store.away = True
    monkeypatch.setattr(store_calls, "FULL_PATIENCE_S", 0.1)
    with pytest.raises(DiskFull):
        await calls.repeat(store.upper, "a")


async def test_what_is_owed_is_done_in_order_when_the_store_is_back() -> None:
    """Calls that failed and those that came after them, each once; one that was cancelled is not made."""
    store = Store()
    calls = StoreCalls(store, asyncio.Event())
    task = asyncio.create_task(calls.retry_owed())
    await calls.owe((store.upper, "first"))
    assert store.done == ["first"]
    store.away = True
    for key in ("b", "a", "cancelled", "b", "c"):
        await calls.owe((store.upper, key))
    calls.cancel(store.upper, "cancelled")
    calls.cancel(store.upper, "never owed")
    store.away = False

    async def all_done() -> bool:
        return len(store.done) == 4

    await until(all_done, 5)
    task.cancel()
    assert store.done == ["first", "b", "a", "c"]


async def test_what_can_never_be_done_is_not_owed_for_ever() -> None:
    """A call that the store refuses for good does not stand in the way of the next one."""
    store = Store()
    calls = StoreCalls(store, asyncio.Event())
    await calls.owe((store.upper, "unknown"), (store.upper, "a"))
    assert (store.done, store.asked) == (["a"], 2)
    await calls.owe((store.upper, "b"))
    assert (store.done, store.asked) == (["a", "b"], 3)


async def test_a_slow_call_does_not_undo_a_newer_one() -> None:
    """The older one fails when the newer one is owed: it is made again before that, not after it."""
    store, release = Slow(), threading.Event()
    store.wait = release.wait
    calls = StoreCalls(store, asyncio.Event())
    settling = asyncio.create_task(calls.retry_owed())
    first = asyncio.create_task(calls.owe((store.note, "first")))

    async def asked() -> bool:
        return store.asked == 1

    await until(asked, 5)
    second = asyncio.create_task(calls.owe((store.note, "second")))
    await asyncio.sleep(0.05)
    assert store.asked == 1
    release.set()

    async def both() -> bool:
        return len(store.done) == 2

    await until(both, 5)
    assert store.done == ["first", "second"]
    await asyncio.gather(first, second)
    settling.cancel()


class Slow(InMemory):
    """Its first call takes long, and fails."""

    blocking = True

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.done: list[str] = []
        self.wait: Callable[[float], bool] = lambda seconds: True

    def note(self, key: str) -> None:
        """A call."""
        self.asked += 1
        if self.asked == 1:
            self.wait(10)
            raise StoreUnavailable("a connection that died")
        self.done.append(key)
