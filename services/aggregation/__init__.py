"""Aggregation rules by the name that a user types."""

from __future__ import annotations

from collections.abc import Callable

from .base import (
    Aggregator,
    Imprecise,
    State,
    View,
    arrivals,
    check_update,
    is_elementwise,
    is_weighted,
    keeps_previous,
    min_updates,
    takes_rounds,
    trained,
)
from .bulyan import Bulyan
from .fedasync import FedAsync
from .fedavg import FedAvg
from .fedbuff import FedBuff
from .fednova import FedNova
from .fedrec import FedRec
from .fedstride import FedStride
from .geometric_median import GeometricMedian
from .krum import Krum, MultiKrum
from .median import Median
from .qfedavg import QFedAvg
from .trimmed_mean import TrimmedMean

RULES: dict[str, Callable[..., Aggregator]] = {
    "FedAvg": FedAvg,
    "FedStride": FedStride,
    "FedNova": FedNova,
    "QFedAvg": QFedAvg,
    "Median": Median,
    "TrimmedMean": TrimmedMean,
    "Krum": Krum,
    "MultiKrum": MultiKrum,
    "GeometricMedian": GeometricMedian,
    "Bulyan": Bulyan,
    "FedRec": FedRec,
    "FedAsync": FedAsync,
    "FedBuff": FedBuff,
}

__all__ = [
    "RULES",
    "Aggregator",
    "Imprecise",
    "State",
    "View",
    "arrivals",
    "check_update",
    "is_elementwise",
    "is_weighted",
    "keeps_previous",
    "min_updates",
    "takes_rounds",
    "trained",
]
