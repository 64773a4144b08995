"""Server optimizers: how the community model moves towards what the rule aggregated (Reddi et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .aggregation.base import Array, State


class ServerOptimizer(Protocol):
    """Makes the next community model from the last one and the aggregate."""

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """The next model, and the state for the next step; `aggregate` may be used up."""
        ...


@dataclass(frozen=True)
class Replace:
    """`None`: the aggregate is the next model."""

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """See ServerOptimizer.step."""
        return aggregate, state


OPTIMIZERS: dict[str, Callable[..., ServerOptimizer]] = {"None": Replace}
