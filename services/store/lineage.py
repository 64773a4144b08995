"""The order of each learner's updates, and which of them are too old to keep."""

from __future__ import annotations

from collections import defaultdict, deque
from contextlib import suppress


class Lineage:
    """Newest `length` keys per learner; 0 keeps all."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._keys: defaultdict[str, deque[str]] = defaultdict(deque)

    def append(self, learner: str, key: str) -> list[str]:
        """Note the newest key, once; returns the keys that are too old, oldest first: they stay until `discard`."""
        keys = self._keys[learner]
        if key not in keys:
            keys.append(key)
        return list(keys)[: -self.length] if self.length else []

    def discard(self, learner: str, key: str) -> None:
        """The key is not held any more."""
        with suppress(ValueError):
            self._keys[learner].remove(key)

    def of(self, learner: str) -> list[str]:
        """Keys of the learner, oldest first."""
        return list(self._keys.get(learner, ()))

    def forget(self, learner: str) -> None:
        """Forget the learner."""
        self._keys.pop(learner, None)
