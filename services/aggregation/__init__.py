"""Aggregation rules by the name that a user types."""

from __future__ import annotations

from collections.abc import Callable

from .base import Aggregator, State, View
from .fedavg import FedAvg
from .krum import Krum, MultiKrum
from .median import Median
from .trimmed_mean import TrimmedMean

RULES: dict[str, Callable[..., Aggregator]] = {
    "FedAvg": FedAvg,
    "Median": Median,
    "TrimmedMean": TrimmedMean,
    "Krum": Krum,
    "MultiKrum": MultiKrum,
}

__all__ = ["RULES", "Aggregator", "State", "View"]
