"""Transforms, wrapped around any rule: what is done to an update before it is checked, stored and counted."""

from __future__ import annotations

from collections.abc import Callable

from .base import Bounds, Transform, first_bounds, next_bounds, transform
from .clipping import AdaptiveClipNorm, ClipNorm
from .outliers import ZeroOutliers

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "ClipNorm": ClipNorm,
    "AdaptiveClipNorm": AdaptiveClipNorm,
    "ZeroOutliers": ZeroOutliers,
}

__all__ = ["TRANSFORMS", "Bounds", "Transform", "first_bounds", "next_bounds", "transform"]
