"""The federation written down as rows, and made again of them."""

from __future__ import annotations

from .database import NAME, Database
from .ownership import Ownership
from .reader import Aside, Kept, rows_of
from .restore import extend, restore
from .rows import Batch, Recorder, Row

__all__ = ["NAME", "Aside", "Batch", "Database", "Kept", "Ownership", "Recorder", "Row", "extend", "restore", "rows_of"]
