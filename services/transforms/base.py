"""What a transform is, and how the transforms of a run follow one another and learn their bounds.

A transform has one number, its bound, which may follow the updates. The run keeps the bounds, as explicit state: an
update is transformed with those that were in force when its round began (when the model that it was trained from was
made), so the order of arrival does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Protocol

from .. import messages as m
from ..parameters import Parameter, number
from ..weights import Tensor
from .difference import Difference

Bounds = tuple[float, ...]  # one per transform, in their order
SMALLEST, LARGEST = 1e-150, 1e150  # of a bound: its square is a float64


class Transform(Protocol):
    """Changes an update in place. Frozen: its parameters are its own, the bound comes in."""

    @property
    def first_bound(self) -> float:
        """The bound in the first round."""
        ...

    def apply(self, difference: Difference, bound: float) -> m.Transformed:
        """Change the update by its `difference` from the model; what was done. Raises NonFiniteUpdate."""
        ...

    def next_bound(self, bound: float, norms: Sequence[float]) -> float:
        """The bound after an aggregation, of the norms that its updates had before this transform."""
        ...


def transform(
    transforms: Sequence[Transform], bounds: Bounds, model: Sequence[Tensor], update: Sequence[Tensor]
) -> tuple[m.Transformed, ...]:
    """Change the update, whose arrays can be written to, by one transform after the other; what each did.

    The model is the one that the update was trained from; it says which tensors are trainable. Memory: two blocks.
    """
    difference = Difference(model, update)
    return tuple([one.apply(difference, bound) for one, bound in zip(transforms, bounds, strict=True)])


def first_bounds(transforms: Sequence[Transform]) -> Bounds:
    """The bounds that a run begins with."""
    return tuple([one.first_bound for one in transforms])


def next_bounds(transforms: Sequence[Transform], bounds: Bounds, done: Sequence[Sequence[m.Transformed]]) -> Bounds:
    """The bounds after an aggregation; `done` is what was done to each of the updates that entered it."""
    norms = [[math.inf if one.norm is None else one.norm for one in column] for column in zip(*done, strict=True)]
    if not norms:
        return bounds
    return tuple([one.next_bound(b, of) for one, b, of in zip(transforms, bounds, norms, strict=True)])


def toward_quantile(bound: float, norms: Sequence[float], quantile: float, learning_rate: float) -> float:
    """One step of a bound towards the quantile of the norms (Andrew et al. 2021, arXiv:1905.03871).

    C <- C exp(-learning_rate (b - quantile)), where b is the share of the norms that lie within C.
    """
    within = sum(norm <= bound for norm in norms) / len(norms)
    return min(max(bound * math.exp(-learning_rate * (within - quantile)), SMALLEST), LARGEST)


def bound(meaning: str, least: float = SMALLEST) -> Parameter:
    """Of a parameter that is a bound, or makes one."""
    return number(least, most=LARGEST, meaning=meaning)


Quantile = Annotated[float, number(0, most=1, meaning="of the updates' norms that the bound follows")]
QuantileRate = Annotated[float, number(0, most=100, meaning="how fast it follows")]
