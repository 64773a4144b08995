"""How much less an update counts that was trained from an old model (Xie et al. 2019, arXiv:1903.03934, 5.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .parameters import check_at_least_zero

KINDS = ("constant", "hinge", "polynomial")


@dataclass(frozen=True)
class Staleness:
    """s(t): 1 for `constant`; 1 up to b and 1 / (a·(t - b) + 1) beyond for `hinge`; (t + 1)^-a for `polynomial`."""

    kind: str
    a: float
    b: float

    def __post_init__(self) -> None:
        """Raise ValueError for a function that cannot be."""
        if self.kind not in KINDS:
            raise ValueError(f"staleness must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name, value in (("staleness_a", self.a), ("staleness_b", self.b)):
            check_at_least_zero(name, value)

    def weight(self, staleness: int) -> float:
        """Between 0 and 1, for `staleness` community models made since the update's own."""
        if self.kind == "polynomial":
            return math.pow(staleness + 1.0, -self.a)
        if self.kind == "hinge" and staleness > self.b:
            return 1.0 / (self.a * (staleness - self.b) + 1.0)
        return 1.0


@dataclass(frozen=True)
class Fading:
    """The parameters of s of a rule whose updates count less the older they are; by default 1/√(1 + t)."""

    staleness: str = "polynomial"
    staleness_a: float = 0.5
    staleness_b: float = 4.0

    def __post_init__(self) -> None:
        """Raise ValueError for a function that cannot be."""
        self._function()

    def weight(self, staleness: int) -> float:
        """See Staleness.weight."""
        return self._function().weight(staleness)

    def _function(self) -> Staleness:
        return Staleness(self.staleness, self.staleness_a, self.staleness_b)
