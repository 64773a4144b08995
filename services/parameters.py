"""What a run's configuration gives a part (a rule, an optimizer): each parameter with its range and meaning.

A part is a dataclass whose fields say both: `ratio: Annotated[float, number(0, below=1, meaning="…")] = 0.1`. By that
they are checked when it is made, and listed for people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Parameter:
    """What a value may be, and what it means."""

    meaning: str
    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    whole: bool = False
    choices: tuple[str, ...] | None = None  # texts; empty: any

    @property
    def range(self) -> str:
        """In words, after "must be"."""
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}" if self.choices else "a text"
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        told = [f"{words} {limit:g}" for words, limit in limits.items() if math.isfinite(limit)]
        kind = "whole" if self.whole else "finite"
        return f"a {kind} number{' of' if told[0].startswith('at') else ''} {' and '.join(told)}"

    def check(self, name: str, value: object) -> None:
        """Raise ValueError, naming the parameter, for a value that it may not have."""
        if self.choices is not None:
            fits = isinstance(value, str) and (value in self.choices if self.choices else bool(value))
        elif isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            fits = False
        else:
            fits = -math.inf < value < math.inf  # also a whole number that no float holds
            fits = fits and self.least <= value <= self.most and self.above < value < self.below
        if not fits:
            raise ValueError(f"{name} must be {self.range}, got {value!r}")


def number(least: float = -math.inf, *, meaning: str, **limits: float) -> Parameter:
    """A finite number: `least`, or above, most, below."""
    return Parameter(meaning, least, **limits)  # type: ignore[arg-type]


def whole(least: int, *, meaning: str) -> Parameter:
    """A whole number of at least `least`."""
    return Parameter(meaning, least, whole=True)


def text(*choices: str, meaning: str) -> Parameter:
    """A text, one of these where there are any."""
    return Parameter(meaning, choices=choices)


@cache
def parameters_of(part: Any) -> dict[str, Parameter]:
    """The parameters of a part, a class, by name, in the order of its fields."""
    hints = get_type_hints(part, include_extras=True)
    declared = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    fields = getattr(part, "__dataclass_fields__", {})
    return {name: one for name in fields for one in declared[name] if isinstance(one, Parameter)}


class Checked:
    """A part whose parameters are checked when it is made; one that is None by default may be None."""

    def __post_init__(self) -> None:
        """Raise ValueError, naming the parameter, for a value that it may not have."""
        part: Any = type(self)
        for name, one in parameters_of(part).items():
            value = getattr(self, name)
            if value is not None or self.__dataclass_fields__[name].default is not None:  # type: ignore[attr-defined]
                one.check(name, value)
