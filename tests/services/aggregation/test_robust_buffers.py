"""Liars whose weights look honest: what they may do to BatchNorm's statistics, and to distances; 100 seeds of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.aggregation import RULES, View
from services.aggregation.distances import squared_distances
from tests.services.arrays import Array

HONEST, LIARS = 8, 2
ROBUST: list[tuple[str, dict[str, Any]]] = [
    ("Krum", {"num_byzantine": LIARS}),
    ("MultiKrum", {"num_byzantine": LIARS}),
    ("Bulyan", {"num_byzantine": 1}),
    ("GeometricMedian", {}),
    ("Median", {}),
    ("TrimmedMean", {"trim_ratio": 0.25}),
]
robust = pytest.mark.parametrize(("rule", "parameters"), ROBUST, ids=[name for name, _ in ROBUST])


def views(weights: Array, variances: Array) -> list[View]:
    """Updates of a weight and of a variance that no gradient reaches, from a model of zeros and ones."""
    parent = [np.zeros(weights.shape[1], np.float32), np.ones(variances.shape[1], np.float32)]
    pairs = zip(weights.astype(np.float32), variances.astype(np.float32), strict=True)
    return [View(f"learner-{i}", [w, v], parent, [True, False]) for i, (w, v) in enumerate(pairs)]


@robust
def test_tensors_beside_the_distances_are_protected(rule: str, parameters: dict[str, Any]) -> None:
    """Weights in the midst of the honest ones, and a running_var of 1e6 or a running_mean of 1e30."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        weights, beside = random.normal(size=(HONEST + LIARS, 20)), random.uniform(0.9, 1.1, (HONEST + LIARS, 4))
        liars = random.choice(HONEST + LIARS, LIARS if rule != "Bulyan" else 1, replace=False)
        weights[liars] = weights.mean(axis=0)
        beside[liars] = random.choice([1e6, 1e30, -1e30])
        (_, made), _ = RULES[rule](**parameters).aggregate(views(weights, beside), [1.0] * (HONEST + LIARS), None)
        assert np.all((made > 0.8) & (made < 1.2)), seed


@robust
@pytest.mark.parametrize("shift", [1e8, -1e6])
def test_a_common_displacement_blinds_no_distance(rule: str, parameters: dict[str, Any], shift: float) -> None:
    """All have gone far the same way, and the liar a little beside: it enters no model."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        weights = shift + random.normal(size=(HONEST + LIARS, 30))
        liars = random.choice(HONEST + LIARS, 1, replace=False)
        weights[liars] += 30
        given = [View(f"l{i}", [row], [np.zeros(30)], [True]) for i, row in enumerate(weights)]
        (made,), _ = RULES[rule](**parameters).aggregate(given, [1.0] * len(given), None)
        assert np.abs(made - shift).max() < 6, seed


def test_distances_are_those_of_the_differences() -> None:
    """To twelve digits, whatever the updates have in common; equal ones are at 0."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        rows = 1e8 * random.normal(size=50) + random.normal(size=(6, 50))
        rows[5] = rows[4]
        found = squared_distances([View(f"l{i}", [row], [np.zeros(50)], [True]) for i, row in enumerate(rows)])
        want = np.square(rows[:, None] - rows).sum(axis=2)
        assert np.allclose(found, want, rtol=1e-12, atol=0)
