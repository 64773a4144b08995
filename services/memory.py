"""Buffers that sockets write into: page-aligned when large, and used again when nobody looks at them any more.

A fresh mapping costs a page fault per page: huge pages make it cheap, one that was used before costs nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import weakref
from collections import deque

import numpy as np

ALIGNED = 128 * 1024  # bytes: from here on malloc would start 16 bytes into a page, which doubles the cost of receiving
STEP = 1 << 18  # bytes: mappings are multiples of this, so that bodies of nearly one size share them
HUGE = 1 << 21  # bytes: a huge page
IDLE = 8  # mappings that are kept for the next buffers; more are given back to the system

_idle: deque[mmap.mmap] = deque()
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


def _give_back(mapping: mmap.mmap) -> None:
    _idle.append(mapping)
    if len(_idle) > _most:
        with contextlib.suppress(IndexError):  # another thread took it
            _idle.popleft()


def _take(length: int) -> mmap.mmap | None:
    """An idle mapping of this length."""
    for _ in range(len(_idle)):
        try:
            mapping = _idle.popleft()
        except IndexError:  # another thread was quicker
            return None
        if len(mapping) == length:
            return mapping
        _idle.append(mapping)
    return None
