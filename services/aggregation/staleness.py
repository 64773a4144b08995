"""How much less an update counts that was trained from an old model (Xie et al. 2019, arXiv:1903.03934, 5.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from ..parameters import Checked, number, text


@dataclass(frozen=True)
class Fading(Checked):
    """The parameters of s of a rule whose updates count less the older they are; by default 1/√(1 + t).

    s(t): 1 for `constant`; 1 up to b and 1 / (a·(t - b) + 1) beyond for `hinge`; (t + 1)^-a for `polynomial`.
    """

    staleness: Annotated[
        str, text("constant", "hinge", "polynomial", meaning="s(t), what is left of an update t models old")
    ] = "polynomial"
    staleness_a: Annotated[float, number(0, meaning="a of s: how fast it falls")] = 0.5
    staleness_b: Annotated[float, number(0, meaning="b of `hinge`: up to that age an update counts whole")] = 4.0

    def weight(self, staleness: int) -> float:
        """Between 0 and 1, for `staleness` community models made since the update's own."""
        if self.staleness == "polynomial":
            return math.pow(staleness + 1.0, -self.staleness_a)
        if self.staleness == "hinge" and staleness > self.staleness_b:
            return 1.0 / (self.staleness_a * (staleness - self.staleness_b) + 1.0)
        return 1.0
