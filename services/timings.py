"""The times that a learner reports with its update, in milliseconds: of an epoch and of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import InvalidWeight
from .scaling import count

PER_EPOCH, PER_BATCH = "processing_ms_per_epoch", "processing_ms_per_batch"


def check_timings(metadata: Mapping[str, Any]) -> None:
    """Raise InvalidWeight, naming the key, for an update without the times that budgets are made of."""
    for key in (PER_EPOCH, PER_BATCH):
        if metadata.get(key) is None:
            why = f"the update's metadata has no {key!r}, which SemiSynchronous needs: return it from train()"
            raise InvalidWeight(why, key=key)
        if count(metadata, key) <= 0:
            raise InvalidWeight(f"metadata[{key!r}] must be above 0", key=key, got=metadata[key])
