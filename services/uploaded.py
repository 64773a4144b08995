"""Models that an operator put and no run uses yet."""

from __future__ import annotations

from collections import OrderedDict

from .changes import Changes

UPLOADED_KEPT = 8  # the newest


class Uploaded(OrderedDict[str, int]):
    """Size in bytes by digest, the newest last."""

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self._changes = changes

    def add(self, digest: str, size: int) -> None:
        """The newest; the oldest may be forgotten for it."""
        self[digest] = size
        self.move_to_end(digest)
        self._changes.uploaded = True
        while len(self) > UPLOADED_KEPT:
            self.popitem(last=False)
