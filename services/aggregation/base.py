"""What an aggregation rule is: views of updates and their factors in, a model and the rule's own state out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
State = Mapping[str, Any]  # whatever a rule must remember between calls: arrays and scalars, so it can be checkpointed


@dataclass(frozen=True, eq=False)
class View:
    """One learner's update as a rule sees it: read-only views of the store's memory, and what it was trained from."""

    learner: str
    arrays: Sequence[Array]
    parent: Sequence[Array] = ()  # the model that this learner trained from (or from a coarser copy: encoding.down)
    trainable: Sequence[bool] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    staleness: int = 0  # community models made since the parent


class Aggregator(Protocol):
    """A rule. `views` come in the order of the learners' names; `factors` are not normalised.

    A rule that means nothing with few updates says how many it needs in an attribute `min_updates`: a run that would
    begin a round with fewer is refused when it is posted. A rule whose every value depends on nothing but the values of
    the same place says so by an attribute `elementwise`: it may be given all values of a model as one array.
    """

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """The new model (each tensor's dtype and shape kept) and the state for the next call.

        The model is written into `out`, arrays of the model's dtypes and shapes, if that is given; a rule may also
        leave `out` alone. No array shares memory with a view's. Raises AggregationFailed when the updates cannot be
        combined, saying why.
        """
        ...


def is_elementwise(rule: Aggregator) -> bool:
    """Whether a rule does not care how values are divided into tensors."""
    return bool(getattr(rule, "elementwise", False))


def min_updates(rule: Aggregator) -> int:
    """How many updates a rule needs."""
    return int(getattr(rule, "min_updates", 1))
