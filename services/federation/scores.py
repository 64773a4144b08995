"""Combining the learners' scores into one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..messages import CombinedMetrics, Metrics
from ..scaling import LARGEST, cap_factors

EXAMPLES = "num_evaluation_examples"


@dataclass(frozen=True)
class Score:
    """What one learner reported; `weight` None when it said no number of examples: 0 of them is a number."""

    learner: str
    metrics: Mapping[str, float | None]
    weight: float | None = None


def combine(scores: Sequence[Score], cap: float | None = None) -> CombinedMetrics:
    """The mean of each metric, weighted where any that reports it gave a weight, else plain; in the learners' order.

    Weights are held within `cap` as scaling factors are. Who gave none counts as the median of those who did: what one
    left out changes no weight of the others.
    """
    ordered = sorted(scores, key=lambda score: score.learner)
    names = dict.fromkeys(name for score in ordered for name in score.metrics)
    return CombinedMetrics(
        combined={name: _mean(name, ordered, cap) for name in names},
        learners={score.learner: dict(score.metrics) for score in ordered},
    )


def _mean(name: str, scores: Sequence[Score], cap: float | None) -> float | None:
    told = [(value, score.weight) for score in scores if (value := score.metrics.get(name)) is not None]
    if not told:
        return None
    given = [weight for _, weight in told if weight is not None]
    usual = statistics.median(given) if given else 1.0
    weights = cap_factors([usual if weight is None else weight for _, weight in told], cap)
    if math.fsum(weights) == 0:
        weights = [1.0] * len(told)
    return weighted_mean([value for value, _ in told], weights)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """It lies between the smallest and the largest of the values, of which equal ones stay as they are."""
    total = math.fsum(weights)
    # halves: the sum of the largest floats is one
    half = math.fsum(value / 2 * (weight / total) for value, weight in zip(values, weights, strict=True))
    counted = [value for value, weight in zip(values, weights, strict=True) if weight > 0]
    return min(max(2 * half, min(counted)), max(counted))


def evaluation_score(learner: str, metrics: Metrics, metadata: Mapping[str, Any]) -> Score:
    """The score of an evaluation, weighted by `num_evaluation_examples` of its metadata; where that has none, or null,
    of its metrics."""
    given = metrics.get(EXAMPLES) if metadata.get(EXAMPLES) is None else metadata[EXAMPLES]
    counts = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= LARGEST
    kept = {name: value for name, value in metrics.items() if name != EXAMPLES}
    return Score(learner, kept, float(given) if counts and given is not None else None)
