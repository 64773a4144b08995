"""What each learner did in a run so far, as selectors see it: read from the run's rounds, so there is nothing to save.

Learners are known by name: one that enrols again under its name goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .rounds import RoundState
from .selection import Candidate


@dataclass
class History:
    """How often each learner was a member of a round, and the last number that it reported of each metric."""

    chosen: Counter[str] = field(default_factory=Counter)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    read: int = 0  # rounds that are in it

    def follow(self, rounds: Sequence[RoundState]) -> None:
        """Take in the rounds that have closed their training since the last call."""
        for one in rounds[self.read :]:
            if one.state == "training":
                return
            self.chosen.update(task.learner for task in one.train.values())
            for task in one.accepted:
                told = task.outcome.metrics if task.outcome else {}
                numbers = {name: value for name, value in told.items() if value is not None}
                if numbers:
                    self.metrics.setdefault(task.learner, {}).update(numbers)
            self.read += 1

    def of(self, candidate: Candidate) -> Candidate:
        """The candidate with what is known of it."""
        name = candidate.name
        return replace(candidate, chosen=self.chosen[name], metrics=self.metrics.get(name, {}))
