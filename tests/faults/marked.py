"""A learner that trains every model to one number, its mark: the mean of a round tells whose updates counted in it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner_agent import Learner
from learner_agent.agent import Agent, LearnerAtWork, poll
from services import messages as m
from services.rest import Client

Weights = list[NDArray[Any]]


class Marked(Learner):
    """One float32 tensor of `size`; trains for `during_s`. Marks that are powers of two add up to one sum a subset."""

    names = ("w",)

    def __init__(self, mark: float, size: int = 1000, during_s: float = 0.0) -> None:
        self.mark, self.size, self.during_s = mark, size, during_s

    def get_weights(self) -> Weights:
        """Zeros."""
        return [np.zeros(self.size, np.float32)]

    def set_weights(self, weights: Weights) -> None:
        """Nothing is kept."""

    def train(self, weights: Weights, config: dict[str, Any]) -> Any:
        """The mark, everywhere; tells what the model held."""
        time.sleep(self.during_s)
        return [np.full_like(weights[0], self.mark)], {"value": held(weights[0])}, {"num_training_examples": 1}

    def evaluate(self, weights: Weights, config: dict[str, Any]) -> Any:
        """The number that the model holds."""
        return {"value": held(weights[0]), "num_evaluation_examples": 1}


def held(array: NDArray[Any]) -> float:
    """The number that an array holds everywhere; -1 when it is not one number."""
    return float(array[0]) if bool((array == array[0]).all()) else -1.0


def marked() -> Marked:
    """The learner of an agent process: `MARK` is its mark, `DURING_S` how long it trains."""
    return Marked(float(os.environ["MARK"]), during_s=float(os.environ.get("DURING_S", "0")))


def agent_of(client: Client, name: str, mark: float, during_s: float = 0.0) -> Agent:
    """An agent of this process at work on such a learner; close its client at the end."""
    return Agent(LearnerAtWork(Marked(mark, during_s=during_s)), client, poll, m.JoinRequest(name=name))


def counted(one: m.Round) -> float | None:
    """The sum of the marks that counted in a round, from what its model holds; None when nobody scored it."""
    value = one.evaluation_metrics.combined.get("value")
    return None if value is None else round(value * len(one.completed), 3)


def all_counted(rounds: Sequence[m.Round], final: float) -> list[float]:
    """That of each round, from what its model held when the following round trained it; `final` is what the last one
    holds."""
    values = [*(one.train_metrics.combined["value"] or 0.0 for one in rounds[1:]), final]
    return [round(value * len(one.completed), 3) for one, value in zip(rounds, values, strict=True)]


def seconds_between(earlier: str, later: str) -> float:
    """From one time of the contract to another."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
