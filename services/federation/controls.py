"""What the learners of a run with an algorithm hold of their own (algorithms.py), and what each counts in the run's.

The run's group of tensors is the mean of those of the learners that are here, weighted as the model is. It changes by
what the updates of a round bring, and when learners come, go, or count something else: `shift_of` says how. A learner
that is lost takes its share with it, and brings it when it returns; one that has left takes it for good. One that has
sent nothing yet holds zeros, and weighs as much as the others do on average.

There is nothing to save: the rounds say who was present, and whose updates were counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from pydantic import Field

from .. import messages as m
from .rounds import RoundState


class Held(m.Message):
    """What a learner holds: stored beside its newest update that was counted, of this round, with this weight."""

    blob: str  # key of that update; empty: not known, nothing is stored
    weight: float
    round: int


class Shift(m.Message):
    """How the run's group changes in an aggregation: (before · group + Σ weight · what it moves) / after."""

    before: float  # the weight of all that is in it
    after: float
    weights: dict[str, float]  # by learner: of its update
    members: dict[str, Held] = Field(default_factory=dict)  # by learner: what it held, and weighed in it
    came: tuple[Held, ...] = ()  # of others
    went: tuple[Held, ...] = ()

    @property
    def held(self) -> list[Held]:
        """All that it is made of."""
        return [*self.members.values(), *self.came, *self.went]


@dataclass
class Controls:
    """Of one run, by learner id."""

    held: dict[str, Held] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)  # ids of those whose share is in the run's group
    weight: float = 0.0  # of all in it
    plain: bool = False  # a run that 0.1 began: every learner weighs the same
    left: set[str] = field(default_factory=set)  # for good, whose share is in it, or about to be

    def shift_of(self, one: RoundState, weighted: bool) -> Shift | None:
        """How the updates of a round change the run's group; None of a round of 0.1, which told nobody's presence."""
        if not one.present:
            return None
        came = {task.learner_id: task for task in one.accepted}
        weights = {
            key: one.counts(task.learner, task.outcome.factor)
            if weighted and not self.plain and task.outcome and task.outcome.factor is not None
            else 1.0
            for key, task in came.items()
        }
        present = set(one.present)
        known = {key: held.weight for key, held in self.held.items() if key in present} | weights
        others = present - came.keys()
        return Shift(
            before=self.weight,
            after=math.fsum(known.values()) / len(known) * len(present),
            weights={came[key].learner: weight for key, weight in weights.items()},
            members={
                task.learner: held if key in self.inside else held.model_copy(update={"weight": 0.0})
                for key, task in came.items()
                if (held := self.held.get(key))
            },
            came=self._of(others - self.inside),
            went=self._of(self.inside - present),
        )

    def _of(self, keys: Collection[str]) -> tuple[Held, ...]:
        return tuple(self.held[key] for key in sorted(keys) if key in self.held and self.held[key].blob)

    def take(self, one: RoundState, shift: Shift | None) -> None:
        """The round made a model, and its group is the run's."""
        accepted = [(task.learner_id, task.learner, task.outcome) for task in one.accepted]
        if shift is None:
            self.plain = True
        for key, learner, outcome in accepted:
            weight = shift.weights[learner] if shift else 1.0
            blob = outcome.blob if shift and outcome and outcome.blob else ""
            self.held[key] = Held(blob=blob, weight=weight, round=one.number)
        self.inside = self.held.keys() & set(one.present) if shift else set(self.held)
        self.weight = shift.after if shift else float(max(one.learners, len(accepted)))
        self.forget(())

    def forget(self, left: Collection[str], pending: Collection[str] = ()) -> None:
        """These have left for good: what they hold is needed no more once their share has gone, and no update of theirs
        is `pending`, which changes it."""
        self.left.update(left)
        for key in (self.left & self.held.keys()) - self.inside - set(pending):
            del self.held[key]
            self.left.remove(key)

    def counted(self, learner_id: str) -> int | None:
        """The round of a learner's newest update that was counted."""
        held = self.held.get(learner_id)
        return held.round if held else None
