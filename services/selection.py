"""Who trains in a round: a pure function of the candidates, the run's seed and the round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """A learner that could take part, as a selector sees it."""

    id: str
    name: str


class Selector(Protocol):
    """Chooses the members of a round."""

    def select(self, candidates: Sequence[Candidate], count: int, seed: int, round_number: int) -> list[Candidate]:
        """`count` of the candidates (sorted by name), without replacement; the same for the same arguments."""
        ...


@dataclass(frozen=True)
class All:
    """Everyone; when fewer are wanted, each is as likely as any other."""

    def select(self, candidates: Sequence[Candidate], count: int, seed: int, round_number: int) -> list[Candidate]:
        """See Selector.select."""
        if count >= len(candidates):
            return list(candidates)
        chosen = np.random.default_rng([seed, round_number]).choice(len(candidates), size=count, replace=False)
        return [candidates[i] for i in sorted(chosen)]


SELECTORS: dict[str, Callable[[], Selector]] = {"All": All}


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sorted by name, the order of every draw, sum and report."""
    return sorted(candidates, key=lambda candidate: candidate.name)


def draw_order(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    """The order in which learners are asked for their initial weights."""
    ordered = in_order(candidates)
    return [ordered[i] for i in np.random.default_rng([seed, 0]).permutation(len(ordered))]


def target_count(active: int, participation_ratio: float, min_updates: int) -> int:
    """How many updates a round wants: max(min_updates, ceil(r·N - 1e-9)), never more than N."""
    return min(active, max(min_updates, math.ceil(participation_ratio * active - 1e-9)))


def draw_count(target: int, over_selection: float) -> int:
    """How many are drawn so that `target` report although some drop out (Bonawitz et al. 2019, arXiv:1902.01046)."""
    return math.ceil(target * (1 + over_selection) - 1e-9)
