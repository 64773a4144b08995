"""`InMemory`: models in this process's memory. The fast choice; nothing outlives the controller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..errors import UnknownModel
from .base import Buffer
from .lineage import Lineage


class InMemory:
    """Blobs in a dict. A single buffer is kept as it is, without a copy: its owner must not write to it again."""

    name: ClassVar[str] = "InMemory"
    durable: ClassVar[bool] = False
    blocking: ClassVar[bool] = False

    def __init__(self, lineage_length: int = 0) -> None:
        self._blobs: dict[str, memoryview] = {}
        self._lineage = Lineage(lineage_length)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.put."""
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        self._blobs[key] = memoryview(whole).toreadonly()

    def get(self, key: str) -> memoryview:
        """See ModelStore.get."""
        try:
            return self._blobs[key]
        except KeyError:
            raise UnknownModel(f"there is no model {key} in memory", model=key) from None

    def drop(self, key: str) -> None:
        """See ModelStore.drop."""
        self._blobs.pop(key, None)

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
        self._blobs.clear()
