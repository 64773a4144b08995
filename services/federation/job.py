"""What an aggregation is given: a frozen snapshot of a round, so that it can be worked on elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import messages as m
from ..aggregation import State
from ..algorithms import own_key
from .controls import Shift
from .plan import Plan
from .rounds import NO_STATES, ModelInfo, States


@dataclass(frozen=True)
class Share:
    """One update of an aggregation: whose, where it is stored, how much it counts."""

    learner: str
    blob: str
    factor: float  # what it counts
    metrics: m.Metrics
    metadata: Mapping[str, Any]
    transforms: tuple[m.Transformed, ...] = ()  # what they did to it
    trained_from: ModelInfo | None = None  # None: the aggregation's parent
    staleness: int = 0  # community models made since that
    previous: Share | None = None  # the learner's update before, for a rule that keeps it
    fingerprint: str = ""  # of the stored bytes
    reported: float = 0.0  # the factor that its metadata make, which may be capped


@dataclass(frozen=True)
class Aggregation:
    """A frozen snapshot of what is to be aggregated, in the order of the learners' names."""

    run_id: str
    round: int
    parent: ModelInfo
    shares: tuple[Share, ...]
    plan: Plan
    aggregator_state: State | None
    optimizer_state: State | None
    learners: int = 0  # known to the federation, those that sent nothing too
    stored: States = NO_STATES  # keys under which the two states are stored
    shift: Shift | None = None  # of what goes with the model
    beside: Mapping[str, float] = field(default_factory=dict)  # by learner: factors of others in the rule's state

    @property
    def own_keys(self) -> list[str]:
        """Under which it stores what its learners hold of what goes with the model."""
        return [own_key(name, share.blob) for name in self.parent.inputs for share in self.shares if self.shift]
