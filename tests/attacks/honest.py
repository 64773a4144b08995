"""The honest learners of a siege: `python -m tests.attacks.honest URL`.

Each trains for half a second, as on another machine, and adds 1 to every value: all updates of a round are equal, so
the model of round n is n, to the last bit, whatever an attacker keeps out; and it is not if anything of his gets in.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

import numpy as np

from learner_agent import Learner
from learner_agent.agent import Agent, LearnerAtWork, poll
from services import messages as m
from services.rest import Client
from services.weights import Array

LEARNERS = 5
TRAIN_S = 0.5
SHAPES = {"body": (1_000_000,), "head": (3,)}


class Counts(Learner):
    """The model of round n is n."""

    names = tuple(SHAPES)

    def get_weights(self) -> list[Array]:
        """Zeros."""
        return [np.zeros(shape, np.float32) for shape in SHAPES.values()]

    def set_weights(self, weights: list[Array]) -> None:
        """It has no model of its own."""

    def train(self, weights: list[Array], config: dict[str, Any]) -> tuple[list[Array], dict[str, float], Any]:
        """One more, everywhere."""
        time.sleep(TRAIN_S)
        return [one + np.float32(1) for one in weights], {}, {"num_training_examples": 10}

    def evaluate(self, weights: list[Array], config: dict[str, Any]) -> dict[str, float]:
        """How far apart its values are."""
        return {"spread": float(np.ptp(weights[0]))}


async def work(url: str) -> None:
    """All of them, until the federation is over."""
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for number in range(LEARNERS):
            client = await stack.enter_async_context(Client(url, patience_s=None))
            request = m.JoinRequest(name=f"honest-{number}")
            group.create_task(Agent(LearnerAtWork(Counts()), client, poll, request).run())


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
