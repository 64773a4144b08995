"""The async shell around the federation: its clock, its waiting polls, its events, its aggregations, its end."""

from __future__ import annotations

from .metrics import Metrics
from .runtime import Runtime

__all__ = ["Metrics", "Runtime"]
