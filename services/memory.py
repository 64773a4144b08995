"""Buffers that sockets write into: page-aligned when large, and used again when nobody looks at them any more.

A fresh mapping costs a page fault per 4 KiB; one that was used before costs nothing.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque

import numpy as np

ALIGNED = 128 * 1024  # bytes: from here on malloc would start 16 bytes into a page, which doubles the cost of receiving
STEP = 1 << 18  # bytes: mappings are multiples of this, so that bodies of nearly one size share them
IDLE = 8  # mappings that are kept for the next buffer; more are given back to the system

_idle: deque[mmap.mmap] = deque(maxlen=IDLE)


def allocate(size: int) -> memoryview:
    """A writable buffer of `size` bytes. A large one may hold what an earlier buffer held."""
    if size < ALIGNED:
        return memoryview(bytearray(size))
    length = -(-size // STEP) * STEP
    mapping = _take(length) or mmap.mmap(-1, length)
    lease = np.frombuffer(mapping, np.uint8)  # every view of the buffer keeps it alive; the mapping outlives it
    weakref.finalize(lease, _idle.append, mapping).atexit = False
    return lease.data[:size]


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
