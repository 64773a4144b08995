"""Server optimizers by the name that a user types: how the community model moves towards what the rule aggregated."""

from __future__ import annotations

from collections.abc import Callable

from .adaptive import FedAdagrad, FedAdam, FedYogi
from .base import ServerOptimizer
from .momentum import FedAvgM
from .replacement import Replace

OPTIMIZERS: dict[str, Callable[..., ServerOptimizer]] = {
    "None": Replace,
    "FedAvgM": FedAvgM,
    "FedAdagrad": FedAdagrad,
    "FedAdam": FedAdam,
    "FedYogi": FedYogi,
}

__all__ = ["OPTIMIZERS", "ServerOptimizer"]
