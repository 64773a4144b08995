"""A document given as buffers, cut anew into pieces of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .base import Buffer


def pieces(parts: Sequence[Buffer], most: int) -> Iterator[memoryview]:
    """The bytes of `parts` in pieces of `most` bytes, the last one shorter; none when there are no bytes.

    A piece that lies within one part is a view of it; one that spans several is a copy, made when it is asked for.
    """
    together: list[memoryview] = []
    room = most
    for part in parts:
        left = memoryview(part)
        left = left.cast("B") if left.nbytes else memoryview(b"")
        while left:
            taken, left = left[:room], left[room:]
            together.append(taken)
            room -= len(taken)
            if not room:
                yield _joined(together)
                together, room = [], most
    if together:
        yield _joined(together)


def _joined(views: Sequence[memoryview]) -> memoryview:
    return views[0] if len(views) == 1 else memoryview(b"".join(views))
