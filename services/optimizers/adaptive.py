"""FedAdagrad, FedAdam and FedYogi: each value moves by a step of its own (Reddi et al. 2021, arXiv:2003.00295).

m = beta1 * m + (1 - beta1) * Delta; v is the optimizer's own; W + learning_rate * m / (sqrt(v) + tau). m begins at 0
and v at tau^2, and there is no bias correction. Beta1, beta2 and tau are by default those of the paper's experiments,
in which the learning rate was tuned for each task. The defaults are careful ones: the first step
is in no place longer than the aggregate's (learning_rate <= 2 * tau / (1 - beta1)).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from ..aggregation import State
from ..parameters import Checked, number
from ..weights import Array
from .moments import Change, move

Second = Callable[[Array, Array], None]  # changes v in place, from the square of the pseudo-gradient
Rate = Annotated[float, number(above=0, meaning="η, how far the model moves")]
Beta1 = Annotated[float, number(0, below=1, meaning="share of m that is left a round later")]
Tau = Annotated[float, number(above=0, meaning="added to the root of v: the larger, the less adaptive")]


@dataclass(frozen=True)
class FedAdagrad(Checked):
    """Steps that get ever shorter: v = v + Delta^2 (Reddi et al. 2021, arXiv:2003.00295).

    The paper uses it without momentum.
    """

    learning_rate: Rate = 0.002
    beta1: Beta1 = 0.0
    tau: Tau = 1e-3

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """See ServerOptimizer.step. State: moments `m` and `v`."""

        def second(v: Array, square: Array) -> None:
            v += square

        change = _change(self.learning_rate, self.beta1, self.tau, second)
        return move(model, aggregate, trainable, state, {"m": 0.0, "v": self.tau**2}, change)


@dataclass(frozen=True)
class _Decaying(Checked):
    """What FedAdam and FedYogi have in common: all but how v changes."""

    learning_rate: Rate = 0.01
    beta1: Beta1 = 0.9
    beta2: Annotated[float, number(0, below=1, meaning="share of v that is left a round later")] = 0.99
    tau: Tau = 1e-3

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
    """Each value has a step of its own: v = beta2 * v + (1 - beta2) * Delta^2 (Reddi et al. 2021, arXiv:2003.00295)."""

    def _second(self, v: Array, square: Array) -> None:
        v *= self.beta2
        v += (1 - self.beta2) * square


@dataclass(frozen=True)
class FedYogi(_Decaying):
    """Adam with v = v - (1 - beta2) * Delta^2 * sign(v - Delta^2) (Reddi et al. 2021, arXiv:2003.00295)."""

    def _second(self, v: Array, square: Array) -> None:
        v -= (1 - self.beta2) * square * np.sign(v - square)


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
