"""Hyper-parameters that change with the round: what `train_schedule` and `evaluate_schedule` say, and their values.

A schedule begins at the parameter's own value in `train` (or `evaluate`), in round 1, and gives its value in any round:
a pure function of the two, so that a repeated run, a task that is offered again, and a restarted controller agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_LISTED = 10_000  # values of a list
LARGEST = 1e300  # value to begin at: what comes of it stays finite
Decay = Annotated[float, Field(gt=0, le=1)]
Rounds = Annotated[int, Field(ge=2, le=10**9)]
Value = bool | int | float | Annotated[str, Field(max_length=1000)]


class Kind(BaseModel):
    """A way in which a hyper-parameter changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    whole: bool = Field(False, description="round the value to a whole number, as epochs are")


class Step(Kind):
    """Times `decay` after every so many rounds."""

    kind: Literal["step"]
    every: int = Field(ge=1, le=10**9, description="rounds with the same value")
    decay: Decay

    def at(self, base: float, number: int) -> float:
        """The value in round `number`."""
        return base * self.decay ** ((number - 1) // self.every)


class Exponential(Kind):
    """Times `decay` after every round."""

    kind: Literal["exponential"]
    decay: Decay

    def at(self, base: float, number: int) -> float:
        """The value in round `number`."""
        return base * self.decay ** (number - 1)


class Linear(Kind):
    """In equal steps to `to`, which is the value in round `rounds` and after it."""

    kind: Literal["linear"]
    to: float
    rounds: Rounds

    def at(self, base: float, number: int) -> float:
        """The value in round `number`."""
        passed = min(1.0, (number - 1) / (self.rounds - 1))
        return base * (1 - passed) + self.to * passed


class Cosine(Kind):
    """Along half a cosine to `to`, which is the value in round `rounds` and after it.

    Loshchilov & Hutter 2017 (arXiv:1608.03983), without restarts.
    """

    kind: Literal["cosine"]
    to: float = 0.0
    rounds: Rounds

    def at(self, base: float, number: int) -> float:
        """The value in round `number`."""
        passed = min(1.0, (number - 1) / (self.rounds - 1))
        left = (1 + math.cos(math.pi * passed)) / 2
        return base * left + self.to * (1 - left)


class Listed(Kind):
    """The values of rounds 1, 2, …; the last one stays. Anything that a parameter may be."""

    kind: Literal["list"]
    values: list[Value] = Field(min_length=1, max_length=MAX_LISTED)


Changing = Annotated[Step | Exponential | Linear | Cosine | Listed, Field(discriminator="kind")]
KINDS: dict[str, type[Kind]] = {
    "step": Step,
    "exponential": Exponential,
    "linear": Linear,
    "cosine": Cosine,
    "list": Listed,
}


def at_round(given: Mapping[str, Any], schedules: Mapping[str, Changing], number: int) -> dict[str, Any]:
    """The parameters `given` in round `number`; before the first round they are those of the first."""
    return {**given, **{name: _value(one, given.get(name), max(1, number)) for name, one in schedules.items()}}


def missing(given: Mapping[str, Any], schedules: Mapping[str, Changing]) -> list[str]:
    """Names of the scheduled parameters that begin at no number."""
    return [name for name, one in schedules.items() if not isinstance(one, Listed) and not _is_number(given.get(name))]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def _value(one: Changing, base: Any, number: int) -> Value:
    value = one.values[min(number, len(one.values)) - 1] if isinstance(one, Listed) else one.at(base, number)
    return round(value) if one.whole and isinstance(value, float) else value
