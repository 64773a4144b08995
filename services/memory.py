"""Buffers that sockets write into: page-aligned when large, which makes receiving about twice as cheap."""

from __future__ import annotations

import mmap

ALIGNED = 128 * 1024  # bytes: from here on malloc would start 16 bytes into a page


def allocate(size: int) -> memoryview:
    """A writable, zeroed buffer of `size` bytes; its pages cost nothing until they are written."""
    return memoryview(bytearray(size)) if size < ALIGNED else memoryview(mmap.mmap(-1, size))
