"""`OnDisk`: each model a file, written beside and renamed into place, read through mmap."""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from ..errors import DiskFull, StoreUnavailable, UnknownModel
from .base import Buffer
from .lineage import Lineage

KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")
UNFINISHED = ".part"


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
        unfinished = target.with_name(f"{key}.{os.urandom(6).hex()}{UNFINISHED}")
        try:
            with unfinished.open("wb") as file:
                for part in parts:
                    file.write(part)
            unfinished.replace(target)
        except BaseException as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no space left in {self.folder}: free some, the call may be repeated") from error
            raise StoreUnavailable(f"cannot write to {self.folder}: {error.strerror}") from error

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

    def lineage(self, learner: str) -> list[str]:
        """See ModelStore.lineage."""
        return self._lineage.of(learner)

    def erase(self, learner: str) -> None:
        """See ModelStore.erase."""
        for key in self._lineage.pop(learner):
            self.drop(key)

    def close(self) -> None:
        """See ModelStore.close."""

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise UnknownModel(f"{key!r} cannot be a model's key", model=key)
        return self.folder / key
