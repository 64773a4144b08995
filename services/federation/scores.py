"""Combining the learners' scores into one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..messages import CombinedMetrics, Metrics
from ..scaling import LARGEST, cap_factors

EXAMPLES = "num_evaluation_examples"


@dataclass(frozen=True)
class Score:
    """What one learner reported; `weight` None when it said no number of examples."""

    learner: str
    metrics: Mapping[str, float | None]
    weight: float | None = None


def combine(scores: Sequence[Score], cap: float | None = None) -> CombinedMetrics:
    """The mean of each metric, weighted where all that report it gave a weight, else plain; in the learners' order.

    Weights are held within `cap` as scaling factors are.
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
    weights = cap_factors([1.0 if weight is None else weight for _, weight in told], cap)
    if any(weight is None for _, weight in told) or math.fsum(weights) == 0:
        weights = [1.0] * len(told)
    total = math.fsum(weights)
    try:
        return math.fsum(value * (weight / total) for (value, _), weight in zip(told, weights, strict=True))
    except OverflowError:  # the mean of the largest floats may round to none
        return None


def evaluation_score(learner: str, metrics: Metrics, metadata: Mapping[str, Any]) -> Score:
    """The score of an evaluation, weighted by `num_evaluation_examples` of its metadata, else of its metrics."""
    given = metadata.get(EXAMPLES, metrics.get(EXAMPLES))
    counts = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= LARGEST
    kept = {name: value for name, value in metrics.items() if name != EXAMPLES}
    return Score(learner, kept, float(given) if counts and given is not None else None)
