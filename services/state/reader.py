"""What is in the folder of a controller, read while that may be running: nothing there is written, made or locked."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import ClassVar

from ..errors import InvalidConfig, StoreUnavailable, UnknownModel
from ..store import FOLDER, KEY, UNFINISHED, OnDisk, mapped
from .database import APPLICATION_ID, FORMAT, NAME
from .rows import Row

PIECE = 1 << 20  # bytes that are copied at a time
HINT = "name the folder of a controller with the store OnDisk: --data-dir"


def rows_of(folder: Path, *kinds: str) -> list[Row]:
    """What is remembered, of these kinds; raises InvalidConfig, naming the file, when it cannot be read."""
    path = folder / NAME
    if not path.is_file():
        raise InvalidConfig(f"{path} is not there; {HINT}", path=str(path))
    try:
        with closing(sqlite3.connect(_uri(path), uri=True)) as connection:
            (owner,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if (owner, version) != (APPLICATION_ID, FORMAT):
                advice = "; a controller that is started on it brings it up" if version < FORMAT else ""
                raise InvalidConfig(f"{path} has format {version}, this program reads {FORMAT}{advice}", path=str(path))
            wanted = ", ".join("?" * len(kinds))
            found = connection.execute(f"SELECT kind, key, run, data FROM row WHERE kind IN ({wanted})", kinds)
            return [Row(*one) for one in found.fetchall()]
    except sqlite3.Error as error:
        raise InvalidConfig(f"{path} cannot be read: {error}", path=str(path)) from error


def _uri(path: Path) -> str:
    """A log beside it belongs to a controller that runs, or was killed: it is read, with its index, as it is."""
    return f"{path.resolve().as_uri()}?mode=ro&{'readonly_shm=1' if _log(path).exists() else 'immutable=1'}"


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


class Kept:
    """The models of that folder; `get` as a store's. Raises InvalidConfig when it has none.

    Of a controller that may be running they are copied to `copies` first: it writes over files that it has dropped.
    """

    def __init__(self, folder: Path, copies: Path) -> None:
        self._folder, self._copies = folder / FOLDER, copies
        self._copied = _log(folder / NAME).exists()
        if not self._folder.is_dir():
            raise InvalidConfig(f"{self._folder} is not there; {HINT}", path=str(self._folder))

    def get(self, key: str) -> memoryview:
        """See ModelStore.get."""
        if not KEY.fullmatch(key):
            raise UnknownModel(f"{key!r} cannot be a model's key", model=key)
        path, copy = self._folder / key, self._copies / key
        try:
            if self._copied and not copy.exists():
                _copy(path, copy)
            with (copy if self._copied else path).open("rb") as file:
                return mapped(file)
        except FileNotFoundError:
            raise UnknownModel(f"there is no model {key} on disk", model=key) from None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {key} in {self._folder}: {error.strerror}") from error


def _copy(path: Path, copy: Path) -> None:
    """Raises FileNotFoundError, too, when the file was dropped meanwhile."""
    with path.open("rb") as file:
        part = copy.with_name(f"{copy.name}{UNFINISHED}")
        with part.open("wb") as out:
            shutil.copyfileobj(file, out, PIECE)
        if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise FileNotFoundError(path)
        part.replace(copy)


class Aside:
    """A store that reads what is kept elsewhere too, and writes to a folder of its own."""

    name: ClassVar[str] = "OnDisk"
    durable: ClassVar[bool] = True
    blocking: ClassVar[bool] = True

    def __init__(self, kept: Kept, own: OnDisk) -> None:
        self._kept, self._own = kept, own
        self.put, self.publish, self.draft = own.put, own.publish, own.draft
        self.file, self.drop, self.keys, self.make_room = own.file, own.drop, own.keys, own.make_room
        self.remember, self.lineage, self.erase = own.remember, own.lineage, own.erase
        self.claim, self.close = own.claim, own.close

    def get(self, key: str) -> memoryview:
        """See ModelStore.get; what was made here goes before what is kept."""
        try:
            return self._own.get(key)
        except UnknownModel:
            return self._kept.get(key)


__all__ = ["Aside", "Kept", "rows_of"]
