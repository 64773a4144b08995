"""FedRec, federated recency: the mean of every learner's newest update, kept up to date commit by commit.

For the asynchronous protocol of MetisFL (Stripelis et al. 2023, arXiv:2311.00334). A commit of learner k with update w
and factor p changes the sum S and its weight z: S += p·w and z += p, and when k committed before, its last p·w and p
are taken out again. W = S/z.

Sums are float64 with what rounding took from them beside (add_exactly), so that a term that is taken out leaves nothing
behind. One that dwarfs what is left has taken more than is kept: then the sum is made anew of everybody's newest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from ..errors import AggregationFailed
from ..weights import Array, Block, blocks, copy, each, empty_like, fit_dtype, gather, holds, scatter
from .base import Arrivals, Imprecise, State, View
from .whole_numbers import HALF, rounded

SMALL_UNIT = 2.0**-63  # of sums of the largest float64: 1,024 of them with the largest factors do not overflow
HUGE = 1e280
DWARFED = 2.0**40  # times what is left, of the 2^106 that a sum and its rest tell apart
CHUNK = 21  # bits of a factor: times half of a whole number it is exact
EXACT = 2.0**50  # of whole sums: a float64 quotient is rounded as the exact one


@dataclass(frozen=True)
class FedRec:
    """The mean of every learner's newest update, at each commit (Stripelis et al. 2023, arXiv:2311.00334).

    State: `sum` and `lost`, lists of float64 arrays of the tensors' shapes, the `unit` that they are told in, and
    `weight` and `weight_lost`, the sum of the factors in them.

    Whoever sends a factor of 0 counts nothing from then on; while nobody counts the model stays as it is.
    """

    rounds: ClassVar[bool] = False
    arrivals: ClassVar[Arrivals] = Arrivals()
    keeps_previous: ClassVar[bool] = True

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate. Without a state the views are all that counts, else they are commits.

        Raises Imprecise when the state no longer tells what is left of it.
        """
        if not views:
            raise AggregationFailed("there is no commit")
        huge = any(_is_huge(view.arrays) for view in views)
        before = _State.empty(views[0], SMALL_UNIT if huge else 1.0) if state is None else _State.of(state)
        if huge and before.unit == 1.0:
            raise Imprecise
        counts = [*factors, *(-view.previous_factor for view in views if view.previous is not None)]
        after = before.weighing(counts)
        made = empty_like(views[0].arrays) if out is None else list(out)
        if after.weight <= 0:  # nobody is left in the sum
            if not views[0].current:
                raise AggregationFailed("no update has a scaling factor above 0: there is nothing to average")
            return copy(views[0].current, made), _State.empty(views[0], before.unit).saved()
        dwarfed: list[Block] = []

        def commit(block: Block) -> None:
            total, lost, gone = np.zeros((3, block.size))
            gather(before.total, block, total)
            gather(before.lost, block, lost)
            for view, factor in zip(views, factors, strict=True):
                for term in _terms(view.arrays, block, factor * before.unit):
                    add_exactly(total, lost, term)
                if view.previous is not None:
                    for term in _terms(view.previous, block, -view.previous_factor * before.unit):
                        add_exactly(total, lost, term)
                        np.maximum(gone, np.abs(term), out=gone)
            whole = total + lost
            lost -= whole - total
            if not holds(np.float64, whole):
                raise AggregationFailed("the sum of the learners' newest updates overflows")
            if (gone > DWARFED * np.abs(whole)).any():
                dwarfed.append(block)
            scatter(whole, block, after.total)
            scatter(lost, block, after.lost)
            scatter(_mean(whole, lost, after, made[block.first].dtype), block, made)

        each(blocks(made), lambda: commit)
        if dwarfed and state is not None:
            raise Imprecise
        if state is None and len(views) == 1:
            made = copy(views[0].arrays, out)  # to the bit
        return made, after.saved()


@dataclass(frozen=True)
class _State:
    total: Sequence[Array]
    lost: Sequence[Array]
    unit: float
    weight: float = 0.0
    weight_lost: float = 0.0

    @classmethod
    def empty(cls, view: View, unit: float) -> _State:
        zeros = [[np.zeros(array.shape) for array in view.arrays] for _ in range(2)]
        return cls(zeros[0], zeros[1], unit)

    @classmethod
    def of(cls, state: State) -> _State:
        """As it was saved, also by versions that kept nothing of what rounding took."""
        lost = state.get("lost") or [np.zeros(array.shape) for array in state["sum"]]
        weights = float(state["weight"]), float(state.get("weight_lost", 0.0))
        return cls(state["sum"], lost, float(state.get("unit", SMALL_UNIT)), *weights)

    def weighing(self, counts: Sequence[float]) -> _State:
        """Room for the sums after a commit, and their weight."""
        parts = [self.weight, self.weight_lost, *counts]
        weight = math.fsum(parts)
        room = [[np.empty(array.shape) for array in self.total] for _ in range(2)]
        return _State(room[0], room[1], self.unit, weight, math.fsum([*parts, -weight]))

    def saved(self) -> State:
        sums = {"sum": list(self.total), "lost": list(self.lost)}
        return {**sums, "unit": self.unit, "weight": self.weight, "weight_lost": self.weight_lost}


def add_exactly(total: Array, lost: Array, term: Array) -> None:
    """Add to `total`, and what rounding takes from it to `lost` (TwoSum: D. E. Knuth, TAOCP 2, 4.2.2 B)."""
    before = total.copy()
    total += term
    part = total - before
    lost += (before - (total - part)) + (term - part)


def _is_huge(arrays: Sequence[Array]) -> bool:
    return any(array.dtype == np.float64 and array.size and np.abs(array).max() > HUGE for array in arrays)


def _terms(model: Sequence[Array], block: Block, factor: float) -> Iterator[Array]:
    """A block times a factor; of whole numbers, which may be longer than a float64, exact parts of it."""
    dtype = model[block.first].dtype
    if dtype.kind not in "iu" or dtype.itemsize < 8:
        term = np.empty(block.size)
        gather(model, block, term)
        if dtype.kind in "iub":
            for chunk in _chunks(factor):
                yield term * chunk
        else:
            term *= factor
            yield term
        return
    row = np.empty(block.size, dtype)
    gather(model, block, row)
    high = (row >> dtype.type(HALF)).astype(np.float64) * 2.0**HALF
    low = (row & dtype.type((1 << HALF) - 1)).astype(np.float64)
    for chunk in _chunks(factor):
        yield high * chunk
        yield low * chunk


def _chunks(factor: float) -> Iterator[float]:
    """A factor as the sum of numbers of a few bits."""
    while factor:
        exponent = math.frexp(factor)[1] - CHUNK
        chunk = math.ldexp(math.trunc(math.ldexp(factor, -exponent)), exponent)
        yield chunk
        factor -= chunk


def _mean(total: Array, lost: Array, state: _State, dtype: np.dtype[Any]) -> Array:
    """The sum divided by its weight, as a row that fits the dtype."""
    weight = state.weight * state.unit
    if dtype.kind not in "iub":
        mean = total / weight
        fit_dtype(mean, dtype)
        return mean
    short = weight.is_integer() and max(weight, np.abs(total).max(initial=0.0)) < EXACT and not lost.any()
    if short and state.unit == 1.0 and np.array_equal(total, np.rint(total)):
        quotient = total / weight
        return quotient > 0.5 if dtype.kind == "b" else np.rint(quotient)
    whole = Fraction(state.weight) + Fraction(state.weight_lost)
    sums = np.array([Fraction(a) + Fraction(b) for a, b in zip(total.tolist(), lost.tolist(), strict=True)], object)
    if dtype.kind == "b":
        return np.asarray(sums * 2 > whole * Fraction(state.unit))
    return rounded(sums, whole * Fraction(state.unit)).astype(dtype)
