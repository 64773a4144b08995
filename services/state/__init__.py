"""The federation written down as rows, and made again of them."""

from __future__ import annotations

from .restore import extend, restore
from .rows import Batch, Row, Writing

__all__ = ["Batch", "Row", "Writing", "extend", "restore"]
