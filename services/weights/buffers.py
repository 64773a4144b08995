"""Buffers that sockets write into: page-aligned when large, and used again when nobody looks at them any more.

A fresh mapping costs a page fault per page: huge pages make it cheap, one that was used before costs nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import weakref
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from .tensors import Buffer

ALIGNED = 128 * 1024  # bytes: from here on malloc would start 16 bytes into a page, which doubles the cost of receiving
STEP = 1 << 18  # bytes: mappings are multiples of this, so that bodies of nearly one size share them
HUGE = 1 << 21  # bytes: a huge page
IDLE = 8  # mappings that are kept for the next buffers; more are given back to the system

_idle: deque[tuple[mmap.mmap, bool]] = deque()  # with whether it was idle at the last `drop_idle`
_most = IDLE


def keep(count: int) -> None:
    """Keep so many idle mappings, for a process that moves more bodies at once than usual."""
    global _most
    _most = max(IDLE, count)


def allocate(size: int) -> memoryview:
    """A writable buffer of `size` bytes. A large one may hold what an earlier buffer held."""
    if size < ALIGNED:
        return memoryview(bytearray(size))
    step = STEP if size < HUGE else HUGE
    length = -(-size // step) * step
    mapping = _take(length) or _map(length)
    lease = np.frombuffer(mapping, np.uint8)  # every view of the buffer keeps it alive; the mapping outlives it
    weakref.finalize(lease, _give_back, mapping).atexit = False
    return lease.data[:size]


def _map(length: int) -> mmap.mmap:
    mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if length >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def drop_idle() -> None:
    """Give back to the system what nobody has used since the last call: what comes now may be of another size."""
    with contextlib.suppress(IndexError):  # another thread took the last
        for _ in range(len(_idle)):
            mapping, was_idle = _idle.popleft()
            if not was_idle:
                _idle.append((mapping, True))


def _give_back(mapping: mmap.mmap) -> None:
    _idle.append((mapping, False))
    if len(_idle) > _most:
        with contextlib.suppress(IndexError):  # another thread took it
            _idle.popleft()


def _take(length: int) -> mmap.mmap | None:
    """An idle mapping of this length."""
    for _ in range(len(_idle)):
        try:
            mapping, was_idle = _idle.popleft()
        except IndexError:  # another thread was quicker
            return None
        if len(mapping) == length:
            return mapping
        _idle.append((mapping, was_idle))
    return None


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
