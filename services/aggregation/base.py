"""What an aggregation rule is: views of updates and their factors in, a model and the rule's own state out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import AggregationFailed
from ..weights import Array

State = Mapping[str, Any]  # whatever a rule must remember between calls: arrays and scalars, so it can be checkpointed


class Imprecise(Exception):
    """A rule's state has lost what it would need for the next model: it is to be called without one, with the newest
    update of every learner (only for a rule that `keeps_previous`)."""


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
    current: Sequence[Array] = ()  # the newest community model; the parent itself, but for asynchronous runs
    previous: Sequence[Array] | None = None  # asynchronous runs: this learner's update before, if it is in the state
    previous_factor: float = 0.0  # the scaling factor of that


class Aggregator(Protocol):
    """A rule. `views` come in the order of the learners' names; `factors` are not normalised.

    A rule that means nothing with few updates says how many it needs in an attribute `min_updates`: a run that would
    begin a round with fewer is refused when it is posted. A rule whose every value depends on nothing but the values of
    the same place says so by an attribute `elementwise`: it may be given all values of a model as one array. A rule
    that reads a number beside the tensors says so by a method `check_update(metadata, metrics)`, which raises
    InvalidWeight for an update without it: the update is refused when it arrives.

    Under an asynchronous scheduler only a rule runs that says how it takes updates as they come (`Arrivals`), in an
    attribute `arrivals`; one that makes nothing of a round's updates says `rounds = False`. One whose state holds each
    learner's newest update says `keeps_previous = True`: it is given that update again when a newer one comes.
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


@dataclass(frozen=True)
class Arrivals:
    """How a rule takes updates as they come: so many at a time, alone or with everybody else's newest."""

    count: int = 1
    everybody: bool = False


def arrivals(rule: Aggregator) -> Arrivals | None:
    """How a rule takes updates as they come; None when it does not."""
    found: Arrivals | None = getattr(rule, "arrivals", None)
    return found


def keeps_previous(rule: Aggregator) -> bool:
    """Whether a rule is given a learner's update again when a newer one comes."""
    return bool(getattr(rule, "keeps_previous", False))


def takes_rounds(rule: Aggregator) -> bool:
    """Whether a rule combines the updates of a round."""
    return bool(getattr(rule, "rounds", True))


def check_update(part: object, metadata: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
    """Raise InvalidWeight, naming the key, for an update without what a rule or scheduler reads beside the tensors."""
    if check := getattr(part, "check_update", None):
        check(metadata, metrics)


def trained(arrays: Sequence[Array], trainable: Sequence[bool]) -> list[int]:
    """Indices of the trainable floating tensors; without flags every tensor is trainable."""
    flags = trainable or [True] * len(arrays)
    pairs = zip(arrays, flags, strict=True)
    return [i for i, (array, flag) in enumerate(pairs) if flag and array.dtype.kind not in "iub"]  # bfloat16: V


def is_elementwise(rule: Aggregator) -> bool:
    """Whether a rule does not care how values are divided into tensors."""
    return bool(getattr(rule, "elementwise", False))


def is_weighted(rule: Aggregator) -> bool:
    """Whether updates count in a rule by their scaling factors, and not each the same."""
    return bool(getattr(rule, "weighted", True))


def min_updates(rule: Aggregator) -> int:
    """How many updates a rule needs."""
    return int(getattr(rule, "min_updates", 1))


def check_enough(rule: Aggregator, views: Sequence[View]) -> None:
    """Raise AggregationFailed when there are fewer updates than the rule needs: learners may have dropped out."""
    needed = min_updates(rule)
    if len(views) < needed:
        raise AggregationFailed(
            f"{rule} needs {needed} updates, there are {len(views)}", expected=needed, got=len(views)
        )
