"""What outlives the process: the data folder, the writer of changes, the models, and calls of the store."""

from __future__ import annotations

from .folder import Folder
from .models import Models
from .store_calls import StoreCalls
from .writer import Writer

__all__ = ["Folder", "Models", "StoreCalls", "Writer"]
