"""The order of each learner's updates, and which of them are too old to keep."""

from __future__ import annotations

from collections import defaultdict, deque


class Lineage:
    """Newest `length` keys per learner; 0 keeps all."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._keys: defaultdict[str, deque[str]] = defaultdict(deque)

    def append(self, learner: str, key: str) -> list[str]:
        """Note the newest key; returns the keys that fall out, oldest first."""
        keys = self._keys[learner]
        keys.append(key)
        return [keys.popleft() for _ in range(len(keys) - self.length)] if self.length else []

    def of(self, learner: str) -> list[str]:
        """Keys of the learner, oldest first."""
        return list(self._keys.get(learner, ()))

    def pop(self, learner: str) -> list[str]:
        """Forget the learner; returns its keys."""
        return list(self._keys.pop(learner, ()))
