"""Aggregation rules by the name that a user types."""

from __future__ import annotations

from collections.abc import Callable

from .base import Aggregator, State, View
from .fedavg import FedAvg

RULES: dict[str, Callable[..., Aggregator]] = {
    "FedAvg": FedAvg,
}

__all__ = ["RULES", "Aggregator", "State", "View"]
