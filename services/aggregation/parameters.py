"""Checks of what a part is given: its parameters when it is made, and enough updates when it works."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

from ..errors import AggregationFailed
from .base import Aggregator, View, min_updates


def check_whole(name: str, value: object, least: int) -> None:
    """Raise ValueError, naming the parameter, unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_positive(name: str, value: object) -> None:
    """Raise ValueError, naming the parameter, unless it is a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")


def check_at_least_zero(name: str, value: object) -> None:
    """Raise ValueError, naming the parameter, unless it is a finite number of at least 0."""
    if not _is_finite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")


def check_decay(name: str, value: object) -> None:
    """Raise ValueError, naming the parameter, unless it is at least 0 and below 1."""
    if not _is_finite(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")


def check_enough(rule: Aggregator, views: Sequence[View]) -> None:
    """Raise AggregationFailed when there are fewer updates than the rule needs: learners may have dropped out."""
    needed = min_updates(rule)
    if len(views) < needed:
        raise AggregationFailed(
            f"{rule} needs {needed} updates, there are {len(views)}", expected=needed, got=len(views)
        )


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
