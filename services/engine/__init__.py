"""One aggregation: from stored updates to a stored model, and the same made again to compare."""

from __future__ import annotations

from .local import Made, aggregate, begin_with, layout_in, store_model
from .rule_state import load_state
from .verification import Verdict, verify

__all__ = ["Made", "Verdict", "aggregate", "begin_with", "layout_in", "load_state", "store_model", "verify"]
