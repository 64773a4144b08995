"""FedAvg: the mean of the updates, weighted by the scaling factors (McMahan et al. 2017, arXiv:1602.05629).

q_k = p_k / Σp first, then W = Σ q_k·w_k, so that finite inputs cannot overflow and one contribution comes back
bit-equal. Sums are float64, in the order of the views, a block that fits the processor's cache at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import AggregationFailed
from .base import Array, State, View

BLOCK = 1 << 16  # elements: two float64 blocks are 1 MiB


@dataclass(frozen=True)
class FedAvg:
    """The weighted mean. Integers are rounded half to even, a bool is the weighted majority and a tie is False."""

    def aggregate(
        self, views: Sequence[View], factors: Sequence[float], state: State | None = None
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. Updates with factor 0 are left out."""
        counted = [(view, factor) for view, factor in zip(views, factors, strict=True) if factor > 0]
        if not counted:
            raise AggregationFailed("no update has a scaling factor above 0: there is nothing to average")
        kept = [factor for _, factor in counted]
        columns = zip(*(view.arrays for view, _ in counted), strict=True)
        return [mean(column, kept) for column in columns], state


def mean(arrays: Sequence[Array], factors: Sequence[float]) -> Array:
    """Weighted mean of arrays of one dtype and shape, with the same dtype and shape; `factors` > 0, any scale."""
    first = arrays[0]
    out = np.empty(first.shape, first.dtype)
    if len(arrays) == 1:
        np.copyto(out, first)
        return out
    exact = first.dtype.kind in "iub"
    weights, divisor = _whole(factors) if exact else _shares(factors)
    flat = [array.reshape(-1) for array in arrays]
    target = out.reshape(-1)
    total, term = np.empty(BLOCK), np.empty(BLOCK)
    for at in range(0, target.size, BLOCK):
        size = min(BLOCK, target.size - at)
        acc, part = total[:size], term[:size]
        np.copyto(acc, flat[0][at : at + size], casting="unsafe")
        acc *= weights[0]
        for array, weight in zip(flat[1:], weights[1:], strict=True):
            np.copyto(part, array[at : at + size], casting="unsafe")
            part *= weight
            acc += part
        if exact:
            acc /= divisor
        _store(acc, target[at : at + size])
    return out


def _shares(factors: Sequence[float]) -> tuple[list[float], float]:
    total = math.fsum(factors)
    return [factor / total for factor in factors], 1.0


def _whole(factors: Sequence[float]) -> tuple[list[float], float]:
    """Factors for integers: sums of whole numbers are exact, so the division rounds once and ties stay ties."""
    if all(float(factor).is_integer() for factor in factors):
        common = math.gcd(*(int(factor) for factor in factors))
        factors = [int(factor) // common for factor in factors]
    return [float(factor) for factor in factors], math.fsum(factors)


def _store(acc: Array, target: Array) -> None:
    """Cast a float64 block to the tensor's dtype."""
    kind = target.dtype.kind
    if kind == "b":
        np.greater(acc, 0.5, out=target)
        return
    if kind in "iu":
        np.rint(acc, out=acc)
        limits = np.iinfo(target.dtype)
        low, high = float(limits.min), float(limits.max)
        if high > limits.max:  # 2^63 and 2^64 are floats, but not of the dtype
            high = float(np.nextafter(high, 0))
        np.clip(acc, low, high, out=acc)
    elif target.dtype == np.float64:
        limit = np.finfo(np.float64).max  # shares may add up to 1 + 2^-52
        np.clip(acc, -limit, limit, out=acc)
    np.copyto(target, acc, casting="unsafe")
