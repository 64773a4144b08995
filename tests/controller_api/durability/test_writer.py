"""Writing changes down: many in one transaction, nothing told before it is on the disk, nothing forgotten when it
cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from controller_api.durability import Folder, Writer
from controller_api.durability import writer as keeping
from services.errors import DiskFull, FederationError, StoreUnavailable
from services.federation import Federation
from services.state import NAME, Batch, Database, Recorder, Row, restore
from services.state.rows import UNKNOWN_EVENTS
from tests.conftest import until
from tests.services.fleet import EPOCH, Fleet


class Gate:
    """Stands before the writes of a database, each of which takes place in a thread."""

    def __init__(self, database: Database) -> None:
        self.batches: list[Batch] = []
        self.errors: list[Exception] = []  # that the next writes end with
        self._turns = threading.Semaphore(1_000_000)
        self._write = database.write
        database.write = self  # type: ignore[method-assign]

    def close(self) -> None:
        """Every write waits for its turn."""
        self._turns = threading.Semaphore(0)

    def let_pass(self, count: int = 1) -> None:
        """So many of them take place."""
        self._turns.release(count)

    def __call__(self, batch: Batch) -> None:
        """Database.write."""
        self.batches.append(batch)
        if not self._turns.acquire(timeout=20):
            raise StoreUnavailable("its turn never came")
        if self.errors:
            raise self.errors.pop(0)
        self._write(batch)


class Kept:
    """A fleet whose federation is written down."""

    def __init__(self, path: Path, make_room: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.fleet = Fleet()
        self.folder = Folder(path)
        self.gate = Gate(self.folder.database)
        federation = self.fleet.federation
        self.writer = Writer(Recorder(federation), federation.changes, self.folder, make_room)

    def join(self, name: str) -> asyncio.Task[None]:
        """A learner enrols; its caller waits until that is written."""
        self.fleet.join(name)
        return asyncio.create_task(self.writer.kept())

    def written(self) -> set[str]:
        """Ids of the members that another process finds now."""
        with closing(sqlite3.connect(self.path / NAME)) as connection:
            return {key for (key,) in connection.execute("SELECT key FROM row WHERE kind = 'member'")}

    async def writing(self) -> bool:
        """Whether the first write has begun."""
        return bool(self.gate.batches)

    async def all_written(self) -> bool:
        """Whether there is nothing to write."""
        return self.writer.all_written


@asynccontextmanager
async def kept(path: Path, make_room: Callable[[], None] = lambda: None) -> AsyncIterator[Kept]:
    """One that is being written down."""
    one = Kept(path, make_room)
    async with one.writer.running():
        yield one


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PAUSE_S", 0.1)


async def test_nothing_is_told_before_it_is_written(tmp_path: Path) -> None:
    """Whoever waits is answered when another process would find the change."""
    async with kept(tmp_path) as one:
        one.gate.close()
        waiting = one.join("anna")
        await until(one.writing)
        assert not waiting.done()
        assert not one.writer.all_written
        assert one.written() == set()
        one.gate.let_pass()
        await waiting
        assert one.written() == set(one.fleet.ids.values())
        assert one.writer.all_written


async def test_what_comes_while_one_write_lasts_is_written_by_the_next(tmp_path: Path) -> None:
    """Two transactions for a hundred callers; a change that came too late for the first waits for the second."""
    async with kept(tmp_path) as one:
        one.gate.close()
        first = one.join("anna")
        await until(one.writing)
        others = [one.join(f"learner-{number}") for number in range(99)]
        await asyncio.sleep(0)
        one.gate.let_pass()
        await first
        assert not any(each.done() for each in others)
        one.gate.let_pass()
        await asyncio.gather(*others)
        assert len(one.gate.batches) == 2
        assert one.written() == set(one.fleet.ids.values())


async def test_nobody_waits_when_nothing_changed(tmp_path: Path) -> None:
    """No transaction either."""
    async with kept(tmp_path) as one:
        one.writer.note()
        await one.writer.kept()
        assert one.gate.batches == []


@pytest.mark.parametrize("error", [DiskFull("no space"), StoreUnavailable("gone"), RuntimeError("a bug")])
async def test_a_change_that_cannot_be_written_is_written_later(tmp_path: Path, error: Exception) -> None:
    """Everybody is refused until then, at once; both changes are there afterwards, and nobody had to ask again."""
    expected = type(error) if isinstance(error, FederationError) else StoreUnavailable
    async with kept(tmp_path) as one:
        one.gate.errors = [error] * 2
        with pytest.raises(expected):
            await one.join("anna")
        assert one.writer.held_up is not None
        assert str(error) in one.writer.held_up.why
        tried, began = len(one.gate.batches), time.monotonic()
        for again in range(3):
            with pytest.raises(expected):
                await one.join(f"bert-{again}")
        assert len(one.gate.batches) == tried
        assert time.monotonic() - began < 0.1
        assert one.written() == set()
        await until(one.all_written)
        assert one.written() == set(one.fleet.ids.values())
        assert one.writer.held_up is None


async def test_of_two_changes_of_one_thing_the_newer_is_written(tmp_path: Path) -> None:
    """Also when the older could not be written in its time."""
    async with kept(tmp_path) as one:
        await one.join("anna")
        one.gate.errors = [StoreUnavailable("gone")]
        with pytest.raises(StoreUnavailable):
            await one.join("bert")
        one.fleet.leave("bert")
        one.fleet.leave("anna")
        await until(one.all_written)
        assert one.written() == set()


async def test_room_is_made_before_a_full_disk_is_told(tmp_path: Path) -> None:
    """Once for each attempt; what fits then is kept, and nobody is refused."""
    made: list[int] = []
    async with kept(tmp_path, lambda: made.append(1)) as one:
        one.gate.errors = [DiskFull("no space")]
        await one.join("anna")
        assert (made, one.writer.held_up) == ([1], None)
        one.gate.errors = [DiskFull("no space"), DiskFull("no space")]
        with pytest.raises(DiskFull):
            await one.join("bert")
        assert made == [1, 1]


async def test_what_changed_at_the_end_is_written(tmp_path: Path) -> None:
    """Nobody waits for it, the folder is given back afterwards."""
    async with kept(tmp_path) as one:
        one.fleet.join("anna")
        one.writer.note()
    assert one.written() == set(one.fleet.ids.values())
    Folder(tmp_path).close()


async def test_no_number_of_an_event_is_used_twice(tmp_path: Path) -> None:
    """Events that change nothing are counted too, before the next process could begin with a number that was told."""
    async with kept(tmp_path) as one:
        await one.join("anna")
        journal = one.fleet.federation.journal
        for _ in range(3 * UNKNOWN_EVENTS):
            journal.emit(one.fleet.now, "task-progress", "batch 1 of 2")
            one.writer.note()
            if journal.count % 1000 == 0:
                await asyncio.sleep(0.01)
        with closing(sqlite3.connect(tmp_path / NAME)) as connection:  # what a process finds that is started now
            rows = [Row(*row) for row in connection.execute("SELECT kind, key, run, data FROM row")]
        following = Federation({}, EPOCH, lambda: "id")
        restore(following, rows)
        assert following.journal.count >= journal.count
