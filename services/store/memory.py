"""`InMemory`: models in this process's memory. The fast choice; nothing outlives the controller."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, ClassVar

from ..errors import UnknownModel
from ..weights import Buffer, allocate
from .base import Draft
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
        if _worth_a_file(sum(memoryview(part).nbytes for part in parts)):
            self._hold(key, _written(parts))
        else:
            self.put(key, parts)

    @contextmanager
    def draft(self, size: int) -> Iterator[Draft]:
        """See ModelStore.draft. Filling fresh pages of a file in memory costs more than one copy into it."""
        buffer, files = allocate(size), list[BinaryIO]()

        def finish() -> None:
            if _worth_a_file(size) and not files:
                files.append(_written([buffer]))

        def keep(key: str) -> None:
            finish()
            if files:
                self._hold(key, files.pop())
            else:
                self.put(key, [buffer])

        try:
            yield Draft(buffer, keep, finish)
        finally:
            for file in files:
                file.close()

    def _hold(self, key: str, file: BinaryIO) -> None:
        self.drop(key)
        self._files[key] = file
        self._blobs[key] = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

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

    def keys(self) -> list[str]:
        """See ModelStore.keys."""
        return list(self._blobs)

    def make_room(self) -> None:
        """See ModelStore.make_room: nothing is held for that."""

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

    def claim(self, owner: str) -> None:
        """See ModelStore.claim: nobody else can reach it."""

    def close(self) -> None:
        """See ModelStore.close."""
        for key in list(self._blobs):
            self.drop(key)


def _worth_a_file(size: int) -> bool:
    return size >= SHARED and hasattr(os, "memfd_create")


def _written(parts: Sequence[Buffer]) -> BinaryIO:
    """A file in memory that holds the bytes of `parts`, to be read."""
    with os.fdopen(os.memfd_create("model"), "w+b", buffering=0) as file:
        for part in parts:
            data = memoryview(part).cast("B")
            while data:
                data = data[file.write(data) :]
        file.seek(0)
        return os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
