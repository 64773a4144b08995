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
from .base import KEY, Buffer, Draft
from .lineage import Lineage

UNFINISHED = ".part"
ZEROS = bytes(1 << 20)


class OnDisk:
    """Blobs as files `<folder>/<key>`; what an earlier process left half-written is removed at the start."""

    name: ClassVar[str] = "OnDisk"
    durable: ClassVar[bool] = True
    blocking: ClassVar[bool] = True

    def __init__(self, folder: Path, lineage_length: int = 1) -> None:
        self.folder = folder
        self._lineage = Lineage(lineage_length)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*{UNFINISHED}"):
            left.unlink(missing_ok=True)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.put."""
        target = self._path(key)
        with self._unfinished() as path:
            with path.open("wb") as file:
                for part in parts:
                    file.write(part)
            path.replace(target)

    @contextmanager
    def draft(self, size: int) -> Iterator[Draft]:
        """See ModelStore.draft. The file is mapped, so that what is written can leave memory for the disk."""
        with self._unfinished() as path:
            with path.open("w+b") as file:
                _reserve(file, size)
                mapping = mmap.mmap(file.fileno(), size)
            yield Draft(memoryview(mapping), lambda key: self._keep(path, key))

    def publish(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.publish."""
        self.put(key, parts)

    def file(self, key: str) -> BinaryIO | None:
        """See ModelStore.file."""
        try:
            return self._path(key).open("rb", buffering=0)
        except FileNotFoundError:
            return None

    def get(self, key: str) -> memoryview:
        """See ModelStore.get."""
        try:
            with self._path(key).open("rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return memoryview(b"")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            raise UnknownModel(f"there is no model {key} on disk", model=key) from None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {key} in {self.folder}: {error.strerror}") from error

    def drop(self, key: str) -> None:
        """See ModelStore.drop."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"cannot remove {key} from {self.folder}: {error.strerror}") from error

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
            self.drop(key)
        self._lineage.forget(learner)

    def close(self) -> None:
        """See ModelStore.close."""

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """A name for a file that is gone at the end, unless it was renamed; raises what the store raises."""
        path = self.folder / f"{os.urandom(12).hex()}{UNFINISHED}"
        try:
            yield path
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no space left in {self.folder}: free some, the call may be repeated") from error
            raise StoreUnavailable(f"cannot write to {self.folder}: {error.strerror}") from error
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _keep(self, path: Path, key: str) -> None:
        path.replace(self._path(key))

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise UnknownModel(f"{key!r} cannot be a model's key", model=key)
        return self.folder / key


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
