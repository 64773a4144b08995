"""Learners that train nothing, many in one process: the other side of `metis bench`.

The model is that of the MetisFL paper's stress test (Stripelis et al. 2023, arXiv:2311.00334): 13 inputs, 100 hidden
layers of one width, one output, all float32. Widths 32, 100 and 320 give 106,081, 1,011,501 and 10,276,801 parameters.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from services import messages as m
from services.errors import FederationError
from services.process import Workers, freeze, start_log
from services.rest import Client
from services.weights import Array
from services.weights import buffers as memory

from .agent import Agent, LearnerAtWork, poll
from .learner import Learner

T = TypeVar("T")
INPUTS, HIDDEN_LAYERS = 13, 100


def layer_shapes(params: int) -> list[tuple[int, ...]]:
    """Shapes of weights and biases of the model with nearly `params` parameters."""
    width = max(1, round(math.sqrt(params / HIDDEN_LAYERS)))
    hidden: list[tuple[int, ...]] = [(width, width), (width,)] * HIDDEN_LAYERS
    return [(INPUTS, width), (width,), *hidden, (width, 1), (1,)]


class SyntheticLearner(Learner):
    """Sends back what it received, the first value moved a little, so that every update is another."""

    def __init__(self, index: int, params: int) -> None:
        self._index = index
        self._shapes = layer_shapes(params)

    def get_weights(self) -> list[Array]:
        """Normal random weights; the same for every learner."""
        generator = np.random.default_rng(7)
        return [generator.standard_normal(shape, dtype=np.float32) for shape in self._shapes]

    def set_weights(self, weights: list[Array]) -> None:
        """Nothing is kept."""

    def train(
        self, weights: list[Array], config: dict[str, Any]
    ) -> tuple[list[Array], dict[str, float], dict[str, int]]:
        """No training."""
        weights[0].flat[0] += 1e-3 * (self._index + 1)
        return weights, {}, {"num_training_examples": 100}

    def evaluate(self, weights: list[Array], config: dict[str, Any]) -> Mapping[str, float]:
        """A score that depends on the model's first value only."""
        return {"score": float(weights[0].flat[0])}


class Inline(Workers):
    """Runs calls where they are: there is nothing to keep off the event loop."""

    def __init__(self) -> None:
        super().__init__(0)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """See Workers.run."""
        return call(*arguments)


async def work(controller: str, learners: range, params: int, token: str | None) -> None:
    """Run the learners of these numbers until the federation is over."""
    memory.keep(len(learners))
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for index in learners:
            client = await stack.enter_async_context(Client(controller, token, patience_s=60.0))
            request = m.JoinRequest(name=f"synthetic-{index:04d}")
            learner = LearnerAtWork(SyntheticLearner(index, params))
            agent = Agent(learner, client, poll, request, workers=Inline())
            group.create_task(agent.run())


def main() -> None:
    """Entry point: `python -m learner_agent.synthetic`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--controller", required=True, help="URL")
    parser.add_argument("--learners", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--params", type=int, default=100_000, help="parameters of the model, about")
    parser.add_argument("--token", help="enrolment token")
    given = parser.parse_args()
    start_log(logging.WARNING, cached=True)
    freeze()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            learners = range(given.first, given.first + given.learners)
            asyncio.run(work(given.controller, learners, given.params, given.token))
        except* FederationError as errors:
            raise SystemExit(f"synthetic learners: {errors.exceptions[0]}") from None


if __name__ == "__main__":
    main()
