"""`InMemory`: models in this process's memory. The fast choice; nothing outlives the controller."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, ClassVar

from ..errors import UnknownModel
from .base import Buffer, Draft, buffered
from .lineage import Lineage

SHARED = 256 * 1024  # bytes: from here on sendfile is worth a file


class InMemory:
    """Blobs in a dict. A single buffer is kept as it is, without a copy: its owner must not write to it again."""

    name: ClassVar[str] = "InMemory"
    durable: ClassVar[bool] = False
    blocking: ClassVar[bool] = False

    def __init__(self, lineage_length: int = 0) -> None:
        self._blobs: dict[str, memoryview] = {}
        self._files: dict[str, BinaryIO] = {}
        self._lineage = Lineage(lineage_length)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.put."""
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        self._blobs[key] = memoryview(whole).toreadonly()

    def publish(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.publish. A large model lives in a file in memory, where the system has such files (Linux)."""
        size = sum(memoryview(part).nbytes for part in parts)
        if not _worth_a_file(size):
            self.put(key, parts)
            return
        with os.fdopen(os.memfd_create(key), "w+b", buffering=0) as file:
            for part in parts:
                _write_all(file, memoryview(part).cast("B"))
            file.seek(0)
            self.drop(key)
            self._files[key] = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
            self._blobs[key] = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))

    def draft(self, size: int) -> AbstractContextManager[Draft]:
        """See ModelStore.draft. Filling fresh pages of a file in memory costs more than one copy into it."""
        return buffered(size, self.publish)

    def file(self, key: str) -> BinaryIO | None:
        """See ModelStore.file."""
        held = self._files.get(key)
        return None if held is None else os.fdopen(os.dup(held.fileno()), "rb", buffering=0)

    def get(self, key: str) -> memoryview:
        """See ModelStore.get."""
        try:
            return self._blobs[key]
        except KeyError:
            raise UnknownModel(f"there is no model {key} in memory", model=key) from None

    def drop(self, key: str) -> None:
        """See ModelStore.drop."""
        self._blobs.pop(key, None)
        if file := self._files.pop(key, None):
            file.close()

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
        for key in list(self._blobs):
            self.drop(key)


def _worth_a_file(size: int) -> bool:
    return size >= SHARED and hasattr(os, "memfd_create")


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
