"""FedAdagrad, FedAdam and FedYogi: each value moves by a step of its own (Reddi et al. 2021, arXiv:2003.00295).

m = beta1 * m + (1 - beta1) * Delta; v is the optimizer's own; W + learning_rate * m / (sqrt(v) + tau). m begins at 0
and v at tau^2, and there is no bias correction. Beta1, beta2 and tau are by default those of the paper's experiments,
in which the learning rate was tuned for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..aggregation import State, check_decay, check_positive
from ..weights import Array
from .moments import Change, move

Second = Callable[[Array, Array], None]  # changes v in place, from the square of the pseudo-gradient


@dataclass(frozen=True)
class FedAdagrad:
    """v = v + Delta^2: steps get ever shorter. The paper uses it without momentum."""

    learning_rate: float = 0.1
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot be."""
        _check(self.learning_rate, self.tau, beta1=self.beta1)

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """See ServerOptimizer.step. State: moments `m` and `v`."""

        def second(v: Array, square: Array) -> None:
            v += square

        change = _change(self.learning_rate, self.beta1, self.tau, second)
        return move(model, aggregate, trainable, state, {"m": 0.0, "v": self.tau**2}, change)


@dataclass(frozen=True)
class _Decaying:
    """What FedAdam and FedYogi have in common: all but how v changes."""

    learning_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot be."""
        _check(self.learning_rate, self.tau, beta1=self.beta1, beta2=self.beta2)

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """See ServerOptimizer.step. State: moments `m` and `v`."""
        change = _change(self.learning_rate, self.beta1, self.tau, self._second)
        return move(model, aggregate, trainable, state, {"m": 0.0, "v": self.tau**2}, change)

    def _second(self, v: Array, square: Array) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class FedAdam(_Decaying):
    """v = beta2 * v + (1 - beta2) * Delta^2."""

    def _second(self, v: Array, square: Array) -> None:
        v *= self.beta2
        v += (1 - self.beta2) * square


@dataclass(frozen=True)
class FedYogi(_Decaying):
    """v = v - (1 - beta2) * Delta^2 * sign(v - Delta^2): it shrinks more slowly than Adam's."""

    def _second(self, v: Array, square: Array) -> None:
        v -= (1 - self.beta2) * square * np.sign(v - square)


def _check(learning_rate: float, tau: float, **betas: float) -> None:
    check_positive("learning_rate", learning_rate)
    check_positive("tau", tau)
    for name, value in betas.items():
        check_decay(name, value)


def _change(learning_rate: float, beta1: float, tau: float, second: Second) -> Change:
    """What a step is, with `v` changed by `second`."""

    def change(delta: Array, moments: Mapping[str, Array]) -> Array:
        m, v = moments["m"], moments["v"]
        m *= beta1
        m += (1 - beta1) * delta
        second(v, np.square(delta))
        step: Array = learning_rate * m
        step /= np.sqrt(v) + tau
        return step

    return change
