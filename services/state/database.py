"""The rows of the federation's state in one SQLite file, written so that they outlive the process.

The write-ahead log is flushed at each commit (`synchronous=FULL`): what `write` returned from is there after a crash of
any process, and after a power loss too where the disk keeps its word. SQLite: sqlite.org/wal.html. A row carries a
checksum, since SQLite checks the form of its pages and not what stands in them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import DiskFull, InvalidConfig, StoreUnavailable
from ..process import NotPrivate, check_private, open_private
from .rows import Batch, Row

NAME = "state.sqlite"  # in a controller's folder
BESIDE = ("-wal", "-shm", "-journal")  # ends of the names of SQLite's own files
FORMAT = 2  # of the rows; raise it with a step in MIGRATIONS
APPLICATION_ID = 0x4D455449  # "METI", in the head of the file
IDENTITY = "CREATE TABLE identity AS SELECT lower(hex(randomblob(8))) AS id"
TABLES = (
    "CREATE TABLE row (kind TEXT NOT NULL, key TEXT NOT NULL, run TEXT NOT NULL, data BLOB NOT NULL,"
    " checksum INTEGER NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID",
    "CREATE INDEX row_run ON row (run)",
    IDENTITY,
)
ADVICE = "restore it from a backup, or give another --data-dir to begin anew"
Migration = Callable[[sqlite3.Connection], object]
MIGRATIONS: Mapping[int, Migration] = {1: lambda file: file.execute(IDENTITY)}  # from this format to the next


class Database:
    """One file. Synchronous; used by one thread at a time."""

    def __init__(self, path: Path, migrations: Mapping[int, Migration] = MIGRATIONS, newest: int = FORMAT) -> None:
        """Open or make it, and bring it to the newest format. Raises InvalidConfig, naming the file and the reason, for
        one that is damaged, newer than this program, or not the state of a controller."""
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            for one in (path, *_beside(path)):
                check_private(one)
            if not path.exists():
                _begin(path, newest)
            self._connection = _connected(path)
        except NotPrivate as error:
            raise InvalidConfig(f"{error}", path=str(path)) from error
        except sqlite3.Error as error:
            raise _unreadable(path, error) from error
        try:
            self._look(migrations, newest)
            self._connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            self.close()
            raise _unreadable(path, error) from error
        except BaseException:
            self.close()
            raise

    def _look(self, migrations: Mapping[int, Migration], newest: int) -> None:
        """Nothing is changed in a file that is refused."""
        (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        (owner,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if found != "ok" or not tables:
            raise self._damaged("it is empty" if found == "ok" else found)
        if owner != APPLICATION_ID:
            raise InvalidConfig(
                f"{self.path} is a database, but not the state of a controller; {ADVICE}", path=str(self.path)
            )
        if version > newest:
            raise InvalidConfig(
                f"{self.path} has format {version}, this program knows formats up to {newest}: use the newer program"
                " that wrote it, or another --data-dir",
                path=str(self.path),
                expected=newest,
                got=version,
            )
        steps = [migrations.get(at) for at in range(version, newest)]
        if None in steps:
            raise InvalidConfig(
                f"{self.path} has format {version}, which this program does not know any more: begin anew in another"
                " --data-dir",
                path=str(self.path),
            )
        if steps:
            _change(self._connection, [one for one in steps if one], newest)

    def rows(self, which: str = "") -> list[Row]:
        """Everything that is remembered, or `which` by a clause of SQL.

        Raises InvalidConfig for a row that is not as it was written.
        """
        try:
            found = self._connection.execute(f"SELECT kind, key, run, data, checksum FROM row {which}").fetchall()
        except sqlite3.Error as error:
            raise _unreadable(self.path, error) from error
        rows = [(Row(kind, key, run, data), checksum) for kind, key, run, data, checksum in found]
        for row, checksum in rows:
            if not _whole(row) or _checksum(row) != checksum:
                raise self._damaged(f"the row {row.key!r} of kind {row.kind!r} is not as it was written")
        return [row for row, _ in rows]

    def epoch(self) -> float | None:
        """Wall-clock time at which the clock of the rows was 0; None when there are none."""
        for clock in self.rows("WHERE kind = 'meta' AND key = 'clock'"):
            return float(json.loads(clock.data or b"")["epoch"])
        return None

    def identity(self) -> str:
        """An id that was drawn for the file when it was made."""
        (drawn,) = self._connection.execute("SELECT id FROM identity").fetchone()
        return str(drawn)

    def write(self, batch: Batch) -> None:
        """Remember all of a batch, or nothing; raises DiskFull or StoreUnavailable."""
        gone = [(one.kind, one.key) for one in batch.rows if one.data is None]
        kept = [(*one, _checksum(one)) for one in batch.rows if one.data is not None]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("DELETE FROM row WHERE kind = ? AND key = ?", gone)
                self._connection.executemany("INSERT OR REPLACE INTO row VALUES (?, ?, ?, ?, ?)", kept)
                self._connection.executemany("DELETE FROM row WHERE run = ?", [(run,) for run in batch.forgotten])
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            if _is_full(error):
                raise DiskFull(f"no space left for {self.path}: free some, the call may be repeated") from error
            raise StoreUnavailable(f"cannot write to {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _damaged(self, why: object) -> InvalidConfig:
        return InvalidConfig(f"{self.path} is damaged: {why}; {ADVICE}", path=str(self.path))


def _beside(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{end}") for end in BESIDE]


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _begin(path: Path, version: int) -> None:
    """A new file, which has its name when it is whole: one without contents under that name has lost them."""
    unfinished = path.with_name(f"{path.name}.new")
    for left in (unfinished, *_beside(unfinished), *_beside(path)):
        left.unlink(missing_ok=True)
    os.close(open_private(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    connection = _connected(unfinished)
    try:
        _change(connection, [_make], version)
    finally:
        connection.close()
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _change(connection: sqlite3.Connection, steps: Sequence[Migration], version: int) -> None:
    """Bring the file to another format, wholly or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps:
            step(connection)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={version}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _make(connection: sqlite3.Connection) -> None:
    for table in TABLES:
        connection.execute(table)


def _whole(row: Row) -> bool:
    """Whether its fields are of the kinds that were written."""
    return all(isinstance(one, str) for one in row[:3]) and isinstance(row.data, bytes)


def _checksum(row: Row) -> int:
    return zlib.crc32(b"\0".join((row.kind.encode(), row.key.encode(), row.run.encode(), row.data or b"")))


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")


def _unreadable(path: Path, error: sqlite3.Error) -> InvalidConfig:
    if _is_full(error):
        return InvalidConfig(f"{path} cannot be opened: no space left on its disk; free some", path=str(path))
    return InvalidConfig(f"{path} cannot be read: {error}; {ADVICE}", path=str(path))
