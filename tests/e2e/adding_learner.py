"""A learner whose part in a model can be read off it: it adds its own number, a power of ten."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner_agent import Learner


class Adds(Learner):
    """Adds 10 to the power of its SHARE to every value; with the same rows as the others the mean shows who was in."""

    names = ("counted",)

    def __init__(self, amount: float, values: int = 20_000) -> None:
        """By default of a size that is split in no store but is no trifle."""
        self.amount = amount
        self._values = values

    def get_weights(self) -> list[NDArray[Any]]:
        """Zeros."""
        return [np.zeros(self._values, np.float64)]

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """It has no model of its own."""

    def train(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """The number, added once; it takes a moment."""
        time.sleep(0.02)
        return [weights[0] + self.amount], {}, {"num_training_examples": 1}

    def evaluate(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """The first value."""
        return {"counted": float(weights[0][0]), "num_evaluation_examples": 1}


def make() -> Learner:
    """The learner of this process."""
    return Adds(10.0 ** int(os.environ["SHARE"]), int(os.environ.get("VALUES", "20000")))
