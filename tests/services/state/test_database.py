"""The file of the federation's state: all of a batch or nothing, kept through a kill and a full disk, and refused with
its name and the reason when it is damaged, newer or another's."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from services.errors import DiskFull, InvalidConfig, StoreUnavailable
from services.state import Batch, Row
from services.state.database import FORMAT, Database
from tests.faults.disk import small_disk

ROWS = [Row("member", f"m{i}", "", b'{"name": "learner %d"}' % i) for i in range(40)]
WRITER = """
import sys
from pathlib import Path
from services.state import Batch, Row
from services.state.database import Database
database = Database(Path(sys.argv[1]))
for number in range(100_000):
    twins = [Row("task", f"{part}{number}", "r", b"%d" % number) for part in "ab"]
    database.write(Batch([*twins, Row("meta", "clock", "", b"%d" % number)], []))
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "folder" / "state.sqlite"


def held(path: Path) -> list[Row]:
    """What a process that is started now finds."""
    with closing(Database(path)) as database:
        return sorted(database.rows())


def refused(path: Path, *words: str) -> None:
    """The file is refused, with its name and these words, and left as it was."""
    before = path.read_bytes()
    with pytest.raises(InvalidConfig) as caught:
        Database(path).rows()
    for word in (str(path), *words):
        assert word in caught.value.detail
    assert path.read_bytes() == before


@pytest.fixture
def filled(path: Path) -> Path:
    """A file with rows in it, closed."""
    with closing(Database(path)) as database:
        database.write(Batch(ROWS, []))
    return path


def test_what_was_written_is_there(path: Path) -> None:
    """Rows are replaced by kind and key, and go when they have no data."""
    with closing(Database(path)) as database:
        assert database.rows() == []
        assert database.epoch() is None
        database.write(Batch([Row("meta", "clock", "", b'{"epoch": 7.5}'), Row("task", "t", "r", b"1")], []))
        database.write(Batch([Row("task", "t", "r", b"2"), Row("run", "t", "r", b"3")], []))
        assert database.epoch() == 7.5
    rest = [Row("run", "t", "r", b"3"), Row("task", "t", "r", b"2")]
    assert held(path) == [Row("meta", "clock", "", b'{"epoch": 7.5}'), *rest]
    with closing(Database(path)) as database:
        database.write(Batch([Row("meta", "clock", "", None), Row("task", "unknown", "", None)], []))
    assert held(path) == rest


def test_rows_of_forgotten_runs_are_removed(path: Path) -> None:
    """All of them, those of the same batch too, and no others."""
    rows = [Row(kind, f"{run}/1", run, b"1") for run in ("a", "b") for kind in ("run", "round", "task")]
    with closing(Database(path)) as database:
        database.write(Batch([*rows, ROWS[0]], []))
        database.write(Batch([Row("run", "a/2", "a", b"1")], ["a", "unknown"]))
    assert held(path) == sorted([ROWS[0], *rows[3:]])


def test_all_of_a_batch_or_nothing(path: Path) -> None:
    """A row that cannot be written takes the others with it; the next batch is written."""
    with closing(Database(path)) as database:
        database.write(Batch(ROWS[:2], []))
        wrong = Row("task", "t", "r", sqlite3)  # type: ignore[arg-type]
        with pytest.raises((StoreUnavailable, TypeError)):
            database.write(Batch([ROWS[2], Row("member", "m0", "", None), wrong], []))
        assert sorted(database.rows()) == sorted(ROWS[:2])
        database.write(Batch([ROWS[3]], []))
        assert len(database.rows()) == 3


def test_only_its_owner_may_read_it(filled: Path) -> None:
    """There are hashes of tokens and secrets in it."""
    with closing(Database(filled)) as database:
        database.write(Batch(ROWS[:1], []))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in filled.parent.iterdir()}
    assert set(modes) == {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm"}
    assert set(modes.values()) == {0o600}


def test_a_commit_is_on_the_disk_when_it_returns(path: Path) -> None:
    """Whether the file is new or was there: a write-ahead log that each commit flushes, FULL being 2 to SQLite."""
    for _ in ("new", "there"):
        with closing(Database(path)) as database:
            asked = ("synchronous", "journal_mode")
            found = [database._connection.execute(f"PRAGMA {one}").fetchone() for one in asked]
            assert found == [(2,), ("wal",)]
            database.write(Batch(ROWS[:1], []))
            assert path.with_name("state.sqlite-wal").stat().st_size > 0


# ---- other formats
def test_a_newer_format_is_refused(path: Path) -> None:
    """By name, with both formats, and what to do."""
    Database(path, {}, FORMAT + 1).close()
    refused(path, f"format {FORMAT + 1}", f"up to {FORMAT}", "newer program")


def test_an_older_format_is_brought_up(filled: Path) -> None:
    """Step by step, in one transaction."""

    def shout(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE loud (text TEXT)")

    def twice(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO loud VALUES ('a'), ('b')")

    with closing(Database(filled, {FORMAT: shout, FORMAT + 1: twice}, FORMAT + 2)) as database:
        assert sorted(database.rows()) == sorted(ROWS)
    with closing(sqlite3.connect(filled)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT + 2,)
        assert connection.execute("SELECT text FROM loud").fetchall() == [("a",), ("b",)]
    Database(filled, {}, FORMAT + 2).close()


def test_a_file_has_an_id_of_its_own(path: Path, tmp_path: Path) -> None:
    """Drawn when it is made; one of the first format gets it when it is opened."""
    old = tmp_path / "old.sqlite"
    with closing(Database(path)) as database, closing(Database(old)) as other:
        drawn = database.identity()
        assert len(drawn) == 16
        assert drawn != other.identity()
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("DROP TABLE identity")
        connection.execute("PRAGMA user_version=1")
    with closing(Database(path)) as database, closing(Database(old)) as other:
        assert database.identity() == drawn
        assert len(other.identity()) == 16


def test_a_migration_that_fails_changes_nothing(filled: Path) -> None:
    """The file stays in its format, for the older program."""

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM row")
        connection.execute("no SQL")

    with pytest.raises(InvalidConfig, match=r"state.sqlite cannot be read"):
        Database(filled, {FORMAT: half}, FORMAT + 1)
    assert held(filled) == sorted(ROWS)


def test_a_format_that_is_not_known_any_more_is_refused(filled: Path) -> None:
    """Without a step from it there is no way."""
    with pytest.raises(InvalidConfig, match=f"state.sqlite has format {FORMAT}, which"):
        Database(filled, {}, FORMAT + 1)


# ---- damage
@pytest.mark.parametrize("left", [0, 1, 99, 100, 4096, 5000, 0.5, -600])
def test_a_truncated_file_is_refused(filled: Path, left: float) -> None:
    """To nothing, into its head, by a page, by a byte."""
    size = filled.stat().st_size
    os.truncate(filled, int(size * left) if 0 < left < 1 else int(left % size))
    refused(filled)


def test_flipped_bytes_are_refused_or_do_not_matter(filled: Path) -> None:
    """Whatever byte is not as it was, nothing else is ever read than what was written."""
    whole, draw = filled.read_bytes(), random.Random(5)
    noticed = 0
    for at in [*range(100), *draw.sample(range(100, len(whole)), 300)]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << draw.randrange(8)
        filled.write_bytes(damaged)
        found: list[Row] | None
        try:
            found = held(filled)
        except InvalidConfig as error:
            found, noticed = None if str(filled) in error.detail else [], noticed + 1
        assert found in (None, sorted(ROWS)), f"byte {at}"
        for left in filled.parent.glob("state.sqlite-*"):
            left.unlink(missing_ok=True)
    assert noticed > 50


@pytest.mark.parametrize("text", [b"no database" * 500, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 4096])
def test_what_is_no_database_is_refused(path: Path, text: bytes) -> None:
    """And left as it is."""
    path.parent.mkdir()
    path.write_bytes(text)
    refused(path)


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    """And not a byte of it is changed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE row (kind, key, run, data)")
        connection.commit()
    refused(path, "not the state of a controller")


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    """By name too."""
    path.mkdir(parents=True)
    with pytest.raises(InvalidConfig, match=r"state.sqlite is no file: remove it"):
        Database(path)


def test_a_beginning_that_was_cut_off_is_no_damage(path: Path) -> None:
    """A process that died while it made the file left one of another name."""
    path.parent.mkdir()
    path.with_name("state.sqlite.new").write_bytes(b"SQLite for")
    assert held(path) == []
    assert not path.with_name("state.sqlite.new").exists()


# ---- the disk
def test_a_full_disk(tmp_path: Path) -> None:
    """DiskFull, nothing of the batch is there, reading goes on; with room again the next write works."""
    with small_disk(tmp_path / "disk", 2) as disk, closing(Database(disk.folder / "state.sqlite")) as database:
        database.write(Batch(ROWS, []))
        disk.fill()
        large = [Row("task", f"t{i}", "r", bytes(4096)) for i in range(40)]
        for _ in range(3):
            with pytest.raises(DiskFull, match=r"state.sqlite"):
                database.write(Batch([*large, Row("member", "m0", "", None)], []))
            assert sorted(database.rows()) == sorted(ROWS)
        disk.free()
        database.write(Batch(large, []))
        assert len(database.rows()) == len(ROWS) + len(large)
        database.close()
        assert len(held(disk.folder / "state.sqlite")) == len(ROWS) + len(large)


def test_a_full_disk_at_the_start_is_no_damage(tmp_path: Path) -> None:
    """The reason is told, and nobody is advised to restore a backup; later it opens."""
    with small_disk(tmp_path / "disk", 2) as disk:
        path = disk.folder / "state.sqlite"
        disk.fill()
        with pytest.raises((InvalidConfig, OSError)) as caught:
            Database(path)
        error = caught.value
        assert isinstance(error, InvalidConfig | OSError)
        assert error.errno == errno.ENOSPC if isinstance(error, OSError) else "no space left" in error.detail
        disk.free()
        assert held(path) == []


def test_a_file_that_takes_no_changes_while_it_is_open(filled: Path) -> None:
    """StoreUnavailable, which is 503, reads go on, and so does writing when it may; what was refused is not there."""
    with closing(Database(filled)) as database:
        database._connection.execute("PRAGMA query_only=1")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"cannot write to .*state\.sqlite: "):
                database.write(Batch([Row("task", "t", "r", b"1"), Row("member", "m0", "", None)], ["r"]))
            assert sorted(database.rows()) == sorted(ROWS)
        database._connection.execute("PRAGMA query_only=0")
        database.write(Batch([Row("task", "u", "r", b"2")], []))
    assert held(filled) == sorted([*ROWS, Row("task", "u", "r", b"2")])


def test_a_read_only_disk_at_the_start(tmp_path: Path) -> None:
    """The file is refused by name, nothing of it is changed, and it opens when the disk can be written to again."""
    with small_disk(tmp_path / "disk", 2) as disk:
        path = disk.folder / "folder" / "state.sqlite"
        with closing(Database(path)) as database:
            database.write(Batch(ROWS, []))
        disk.freeze(path.parent)
        refused(path, "cannot be read")
        disk.thaw()
        assert held(path) == sorted(ROWS)


def test_a_closed_file_is_an_answer_too(path: Path) -> None:
    """Not an error of Python's."""
    database = Database(path)
    database.close()
    with pytest.raises(StoreUnavailable):
        database.write(Batch(ROWS, []))


@pytest.mark.parametrize("after", [1, 7, 40, 200])
def test_what_was_written_survives_a_kill(path: Path, after: int) -> None:
    """SIGKILL to a process that writes: all that `write` returned from is there, and no half of a batch."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(after):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    said = [int(line) for line in child.stdout.read().split("\n")[:-1]]
    child.wait(10)
    last = max([after - 1, *said])
    rows = {(row.kind, row.key): row.data for row in held(path)}
    newest = int(rows["meta", "clock"] or b"-1")
    assert newest in (last, last + 1)
    assert {key for kind, key in rows if kind == "task"} == {f"{p}{n}" for n in range(newest + 1) for p in "ab"}


@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_a_file_that_somebody_put_there_is_refused(path: Path, plant: str, end: str) -> None:
    """The state, or what SQLite keeps beside it, as a link: the file is named, what it leads to stays as it was."""
    with closing(Database(path)) as database:
        database.write(Batch(ROWS, []))
    planted, dear = path.with_name(path.name + end), path.with_name("dear")
    if end:
        dear.write_bytes(b"what stood there")
    else:
        path.rename(dear)
    before = dear.read_bytes()
    getattr(planted, plant)(dear)
    refused(path, f"{planted} ", ": put ")
    assert dear.read_bytes() == before


def test_a_new_file_is_not_begun_at_the_end_of_a_link(path: Path) -> None:
    """Nor its journal: what has these names goes, and nothing behind it."""
    path.parent.mkdir()
    dear = path.with_name("dear")
    dear.write_bytes(b"what stood there")
    for end in (".new", ".new-journal"):
        path.with_name(path.name + end).symlink_to(dear)
    before = os.umask(0)
    try:
        with closing(Database(path)) as database:
            database.write(Batch(ROWS, []))
            modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.glob(f"{path.name}*")}
    finally:
        os.umask(before)
    assert dear.read_bytes() == b"what stood there"
    assert set(modes.values()) == {0o600}, modes
    assert len(held(path)) == len(ROWS)
