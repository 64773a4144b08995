"""What a server optimizer is: the last community model and the aggregate in, the next model and a state out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..aggregation import State
from ..weights import Array


class ServerOptimizer(Protocol):
    """Makes the next community model from the last one and the aggregate."""

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """The next model, and the state for the next step.

        `aggregate` may be used up, and its arrays returned; `model` and `state` stay as they are.
        """
        ...
