"""Learners whose losses are parabolas, and SCAFFOLD over them written down once more, after the paper alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner_agent import Learner
from learner_agent.control import Control

Array = NDArray[Any]


@dataclass(frozen=True)
class Parabola:
    """The loss 1/2 · Σ a·(w - b)², gone down in `steps` steps of this rate."""

    a: Array  # (n,)
    b: Array  # (n,)
    steps: int
    rate: float = 0.1
    rows: int = 1  # what its learner's update counts

    def gradient(self, w: Array) -> Array:
        """At w, (n,)."""
        return np.asarray(self.a * (w - self.b))


def some(count: int, n: int = 3) -> list[Parabola]:
    """Parabolas that differ in everything, so that plain averaging drifts."""
    rng = np.random.default_rng(7)
    return [Parabola(rng.uniform(0.5, 3, n), rng.normal(0, 5, n), 2 + k) for k in range(count)]


def optimum(parabolas: Sequence[Parabola]) -> Array:
    """Where the mean of the losses, weighted by the rows, is smallest: (n,)."""
    weights = np.array([one.rows * one.a for one in parabolas])
    return np.asarray(sum(w * one.b for w, one in zip(weights, parabolas, strict=True)) / weights.sum(axis=0))


@dataclass
class Paper:
    """Algorithm 1 of Karimireddy et al. 2020 with option II and a global step of 1."""

    parabolas: Sequence[Parabola]
    x: Array
    c: Array
    own: list[Array]

    @classmethod
    def start(cls, parabolas: Sequence[Parabola], x: Array) -> Paper:
        """All controls are 0."""
        return cls(parabolas, x, np.zeros_like(x), [np.zeros_like(x) for _ in parabolas])

    def round(self, members: Sequence[int]) -> None:
        """The clients with these numbers take part."""
        moves, changes = [], []
        for i in members:
            one, y = self.parabolas[i], self.x
            for _ in range(one.steps):
                y = y - one.rate * (one.gradient(y) - self.own[i] + self.c)
            plus = self.own[i] - self.c + (self.x - y) / (one.steps * one.rate)
            moves.append(y - self.x)
            changes.append(plus - self.own[i])
            self.own[i] = plus
        self.x = self.x + np.mean(moves, axis=0)
        self.c = self.c + len(members) / len(self.parabolas) * np.mean(changes, axis=0)


class Descends(Learner):
    """Goes down a parabola with `Control`. Its tensors: "w", the point, and "n", a counter that no optimizer moves."""

    names = ("w", "n")
    trainable = (True, False)

    def __init__(self, parabola: Parabola) -> None:
        self.parabola = parabola
        self.control = Control()
        self.seen: dict[int, tuple[Array, Array | None]] = {}  # by round: the model and the control that it was given

    def get_weights(self) -> list[Array]:
        """Zeros."""
        return [np.zeros_like(self.parabola.b), np.array(0)]

    def set_weights(self, weights: list[Array]) -> None:
        """Nothing is kept."""

    def train(self, weights: list[Array], config: dict[str, Any]) -> Any:
        """So many steps."""
        w = weights[0].copy()
        given = config.get("inputs", {}).get("control")
        self.seen[config["round"]] = w.copy(), given and np.array(given[0])
        correction = self.control.begin([w], config) or [np.zeros_like(w)]
        for _ in range(self.parabola.steps):
            w = w - self.parabola.rate * (self.parabola.gradient(w) + correction[0])
        told = self.control.end([w], self.parabola.steps, self.parabola.rate)
        return [w, weights[1] + 1], {}, {"num_training_examples": self.parabola.rows, **told}

    def evaluate(self, weights: list[Array], config: dict[str, Any]) -> dict[str, float]:
        """The loss."""
        off = weights[0] - self.parabola.b
        return {"loss": float((self.parabola.a * off * off).sum() / 2)}
