"""Who trains in a round: a pure function of the candidates, the run's seed and the round.

What a learner did before comes with its candidate (see history.py), so a controller that is restarted draws the same.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import numpy as np

from .parameters import Checked, text, whole


@dataclass(frozen=True)
class Candidate:
    """A learner that could take part, as a selector sees it."""

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)  # that it gave when it enrolled
    chosen: int = 0  # closed rounds of this run that it was a member of
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)  # the newest of its updates in this run


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
        return in_order(_draw(candidates, count, seed, round_number))


@dataclass(frozen=True)
class RoundRobin:
    """Those first that were members of the fewest rounds of the run so far; among equals each is as likely."""

    def select(self, candidates: Sequence[Candidate], count: int, seed: int, round_number: int) -> list[Candidate]:
        """See Selector.select."""
        drawn = _draw(candidates, len(candidates), seed, round_number)
        return in_order(sorted(drawn, key=lambda one: one.chosen)[:count])


@dataclass(frozen=True)
class ByLabel(Checked):
    """Stratified: each value of a label gets its share of the places, and at least one while there are enough.

    Learners without the label are a group of their own. With fewer places than groups, the groups that get one are
    drawn. Within a group each learner is as likely as any other.
    """

    label: Annotated[str, text(meaning="key of the labels that learners give when they enrol")]

    def select(self, candidates: Sequence[Candidate], count: int, seed: int, round_number: int) -> list[Candidate]:
        """See Selector.select."""
        if count >= len(candidates):
            return list(candidates)
        groups: dict[str | None, list[Candidate]] = {}  # in the order of the draw
        for one in _draw(candidates, len(candidates), seed, round_number):
            groups.setdefault(one.labels.get(self.label), []).append(one)
        drawn = list(groups.values())
        places = _places([len(group) for group in drawn], count)
        return in_order([one for group, given in zip(drawn, places, strict=True) for one in group[:given]])


def _places(sizes: Sequence[int], count: int) -> list[int]:
    """`count` places dealt out to groups: one each, the next always to the one that lacks most of its exact share.

    What groups equally far behind get goes by their order; with fewer places than groups the first ones get one.
    """
    total = sum(sizes)
    places = [1 if index < count else 0 for index in range(len(sizes))]
    behind = [(total - count * size, index) for index, size in enumerate(sizes) if size > 1]  # of it, times total
    heapq.heapify(behind)
    for _ in range(count - sum(places)):
        lead, index = behind[0]
        places[index] += 1
        if places[index] < sizes[index]:
            heapq.heapreplace(behind, (lead + total, index))
        else:
            heapq.heappop(behind)
    return places


@dataclass(frozen=True)
class PowerOfChoice(Checked):
    """Draws some candidates and keeps those with the highest loss (Cho et al. 2020, arXiv:2010.01243).

    The variant that asks nothing of learners beforehand (there: rpow-d): the loss is the one that came with a
    learner's newest update; those that have told none come first. The draw is uniform: what a learner's data is worth
    is said by the scaling factor.
    """

    candidates: Annotated[int | None, whole(1, meaning="d, at least what is wanted; unset: twice that")] = None
    metric: Annotated[str, text(meaning="of the updates, the loss")] = "loss"

    def select(self, candidates: Sequence[Candidate], count: int, seed: int, round_number: int) -> list[Candidate]:
        """See Selector.select."""
        size = max(count, 2 * count if self.candidates is None else self.candidates)
        drawn = _draw(candidates, size, seed, round_number)
        drawn.sort(key=lambda one: one.metrics.get(self.metric, math.inf), reverse=True)
        return in_order(drawn[:count])


SELECTORS: dict[str, Callable[..., Selector]] = {
    "All": All,
    "RoundRobin": RoundRobin,
    "ByLabel": ByLabel,
    "PowerOfChoice": PowerOfChoice,
}


def _draw(candidates: Sequence[Candidate], size: int, seed: int, round_number: int) -> list[Candidate]:
    """So many of the candidates (all, when there are fewer) in a random order: a function of seed and round."""
    random = np.random.default_rng([seed, round_number])
    return [candidates[i] for i in random.choice(len(candidates), size=min(size, len(candidates)), replace=False)]


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
