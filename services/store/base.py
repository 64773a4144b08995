"""What a model store is: blobs of weights documents by key, and for each learner the lineage of its updates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from ..config import ModelStoreConfig
from ..weights import Buffer, allocate

KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")  # what a model's key may be


@dataclass(frozen=True)
class Draft:
    """Room for a document that is written in place."""

    buffer: memoryview  # writable; not to be written to after `finish` or `keep`
    keep: Callable[[str], None]  # hold it under a key, as `publish` would
    finish: Callable[[], None] = lambda: None  # may be called before: the part of it that takes long and needs no key


@contextmanager
def buffered(size: int, publish: Callable[[str, Sequence[Buffer]], None]) -> Iterator[Draft]:
    """A draft for a store whose documents cannot be written in place: a buffer that is published when it is kept."""
    buffer = allocate(size)
    yield Draft(buffer, lambda key: publish(key, [buffer]))


class ModelStore(Protocol):
    """Synchronous; the controller calls it off the event loop. Keys are digests or made of id characters.

    Raises UnknownModel for a key that is not held, DiskFull or StoreUnavailable when it cannot work now.
    """

    name: ClassVar[str]
    durable: ClassVar[bool]  # whether models outlive the process
    blocking: ClassVar[bool]  # whether calls may wait for a disk or a network

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Hold the bytes of `parts`, one after the other, under `key`; all of them or nothing."""
        ...

    def publish(self, key: str, parts: Sequence[Buffer]) -> None:
        """The same for a model that many will read: `file` may then give it to sendfile."""
        ...

    def draft(self, size: int) -> AbstractContextManager[Draft]:
        """Room for `size` > 0 bytes, so that a large document is never held in memory beside the store.

        What was not kept is gone at the end of the `with`.
        """
        ...

    def file(self, key: str) -> BinaryIO | None:
        """A file that holds the bytes, to be read by offset, for the caller to close; None when there is none."""
        ...

    def get(self, key: str) -> memoryview:
        """Read-only view of the bytes; it stays valid after the key is dropped."""
        ...

    def drop(self, key: str) -> None:
        """Forget `key`; nothing happens when it is not held."""
        ...

    def keys(self) -> list[str]:
        """Every key that is held, in no order; not those of drafts that are not kept yet."""
        ...

    def make_room(self) -> None:
        """Give back disk space that is held only to be quick: something else has found the disk full."""
        ...

    def remember(self, learner: str, key: str) -> None:
        """`key` is the learner's newest update: the oldest beyond `lineage_length` are dropped, first in first out."""
        ...

    def lineage(self, learner: str) -> list[str]:
        """Keys of the learner's updates, oldest first."""
        ...

    def erase(self, learner: str) -> None:
        """Drop all updates of a learner that left."""
        ...

    def claim(self, owner: str) -> None:
        """All that is held belongs to `owner`, the id of a controller's folder; raises InvalidConfig when it is
        another's."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


StoreFactory = Callable[[ModelStoreConfig, Path], ModelStore]
