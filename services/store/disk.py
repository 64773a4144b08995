"""`OnDisk`: each model a file, written beside and renamed into place, read through mmap."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from ..errors import DiskFull, StoreUnavailable, UnknownModel
from ..process import make_private_folder, open_private
from ..weights import Buffer
from .base import KEY, Draft
from .lineage import Lineage
from .spares import WORTH, Spares

FOLDER = "models"  # in a controller's folder
UNFINISHED = ".part"
MAPPED = 1 << 16  # bytes: a smaller file is read
ZEROS = bytes(1 << 20)


class OnDisk:
    """Blobs as files `<folder>/<key>`; what an earlier process left half-written is removed at the start.

    What was put survives this process; with `fsync` also the machine's loss of power, for a wait for the disk each.
    """

    name: ClassVar[str] = "OnDisk"
    durable: ClassVar[bool] = True
    blocking: ClassVar[bool] = True

    def __init__(self, folder: Path, lineage_length: int = 1, fsync: bool = False) -> None:
        self.folder = folder
        self._lineage = Lineage(lineage_length)
        self._fsync = fsync
        make_private_folder(folder)
        self._spares = Spares(folder)
        self._sync_names(folder.parent)
        for left in folder.glob(f"*{UNFINISHED}"):
            left.unlink(missing_ok=True)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.put."""
        target = self._path(key)
        with self._unfinished() as path:
            with self._room(path, sum(memoryview(part).nbytes for part in parts)) as file:
                for part in parts:
                    file.write(part)
                file.truncate()  # of a spare file that was longer
                if self._fsync:
                    file.flush()
                    os.fsync(file)
            path.replace(target)
            self._sync_names(self.folder)

    @contextmanager
    def draft(self, size: int) -> Iterator[Draft]:
        """See ModelStore.draft. The file is mapped, so that what is written can leave memory for the disk."""
        with self._unfinished() as path, self._room(path, size) as file:
            if os.fstat(file.fileno()).st_size > size:
                file.truncate(size)
            _reserve(file, size)
            mapping = mmap.mmap(file.fileno(), size)

            def finish() -> None:
                if self._fsync:
                    mapping.flush()
                    os.fsync(file)

            def keep(key: str) -> None:
                finish()
                path.replace(self._path(key))
                self._spares.note(self._path(key), mapping)
                self._sync_names(self.folder)

            yield Draft(memoryview(mapping), keep, finish)

    def publish(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.publish."""
        self.put(key, parts)

    def file(self, key: str) -> BinaryIO | None:
        """See ModelStore.file."""
        path = self._path(key)
        try:
            with self._spares.lock:
                file = os.fdopen(open_private(path, os.O_RDONLY), "rb", buffering=0)
                self._spares.note(path, file)
                return file
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {key} in {self.folder}: {error.strerror}") from error

    def get(self, key: str) -> memoryview:
        """See ModelStore.get."""
        path = self._path(key)
        try:
            with self._spares.lock, os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
                view = mapped(file)
                if isinstance(view.obj, mmap.mmap):
                    self._spares.note(path, view.obj)
                return view
        except FileNotFoundError:
            raise UnknownModel(f"there is no model {key} on disk", model=key) from None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {key} in {self.folder}: {error.strerror}") from error

    def drop(self, key: str) -> None:
        """See ModelStore.drop."""
        self._drop(key)

    def _drop(self, key: str, for_good: bool = False) -> None:
        try:
            self._spares.drop(self._path(key), for_good)
        except OSError as error:
            raise StoreUnavailable(f"cannot remove {key} from {self.folder}: {error.strerror}") from error

    def keys(self) -> list[str]:
        """See ModelStore.keys."""
        try:
            return [name for name in os.listdir(self.folder) if KEY.fullmatch(name)]
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self.folder}: {error.strerror}") from error

    def make_room(self) -> None:
        """See ModelStore.make_room."""
        self._spares.clear()

    def remember(self, learner: str, key: str) -> None:
        """See ModelStore.remember."""
        for old in self._lineage.append(learner, key):
            self.drop(old)
            self._lineage.discard(learner, old)

    def lineage(self, learner: str) -> list[str]:
        """See ModelStore.lineage."""
        return self._lineage.of(learner)

    def erase(self, learner: str) -> None:
        """See ModelStore.erase."""
        for key in self._lineage.of(learner):
            self._drop(key, for_good=True)
        self._lineage.forget(learner)

    def claim(self, owner: str) -> None:
        """See ModelStore.claim: the folder's lock sees to that."""

    def close(self) -> None:
        """See ModelStore.close."""

    def _room(self, path: Path, size: int) -> BinaryIO:
        """A file to write a document of this size to, from its beginning."""
        spare = size >= WORTH and self._spares.take(path)
        return os.fdopen(open_private(path, os.O_RDWR | (0 if spare else os.O_CREAT | os.O_EXCL)), "r+b")

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """A name for a file that is gone at the end, unless it was renamed; raises what the store raises."""
        path = self.folder / f"{os.urandom(12).hex()}{UNFINISHED}"
        try:
            yield path
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.make_room()
                raise DiskFull(f"no space left in {self.folder}: free some, the call may be repeated") from error
            raise StoreUnavailable(f"cannot write to {self.folder}: {error.strerror}") from error
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _sync_names(self, folder: Path) -> None:
        """Wait until the names in a folder are on the disk, where that is asked for."""
        if self._fsync:
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise UnknownModel(f"{key!r} cannot be a model's key", model=key)
        return self.folder / key


def mapped(file: BinaryIO) -> memoryview:
    """Read-only view of a file's bytes. A mapping costs a file descriptor for as long as somebody looks at it."""
    if os.fstat(file.fileno()).st_size < MAPPED:
        return memoryview(file.read())
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the room now: a process that writes to a mapping for which there is no room left on the disk is killed."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot
                raise
    for at in range(0, size, len(ZEROS)):
        file.write(ZEROS[: size - at])
    file.flush()
