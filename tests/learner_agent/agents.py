"""A small learner whose every call is counted, a line to an app that can be cut, and agents that run on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from learner_agent import Learner
from learner_agent.agent import Agent, LearnerAtWork, StateFile, poll
from services import messages as m
from services.rest import Client
from tests.conftest import URL, InProcess, until

Weights = list[NDArray[Any]]
ONE_ROUND = {"termination": {"federation_rounds": 1}}


class AddsOne(Learner):
    """Adds 1 to each of two tensors, "a" (2,) and "b" () float32; calls `during(config)` in the midst of training."""

    names: tuple[str, ...] = ("a", "b")

    def __init__(self, during: Callable[[dict[str, Any]], Any] = lambda config: None) -> None:
        self.during = during
        self.calls: list[str] = []
        self.given: list[Weights] = []  # by set_weights

    def get_weights(self) -> Weights:
        """Zeros."""
        self.calls.append("get_weights")
        return [np.zeros(2, np.float32), np.zeros((), np.float32)]

    def set_weights(self, weights: Weights) -> None:
        """Keep what was given."""
        self.calls.append("set_weights")
        self.given.append(weights)

    def train(self, weights: Weights, config: dict[str, Any]) -> Any:
        """Each tensor and 1; ten rows."""
        self.calls.append("train")
        self.during(config)
        for array in weights:
            array += 1
        return weights, {"loss": 0.5}, {"num_training_examples": 10}

    def evaluate(self, weights: Weights, config: dict[str, Any]) -> Any:
        """The first value of "a" as the score."""
        self.calls.append("evaluate")
        return {"score": weights[0][0], "num_evaluation_examples": 4}


class Line(httpx.AsyncBaseTransport):
    """The way to an app in this process. Counts what goes over it; `app` None is a controller that is not there.

    `before(request)` and `after(request, response)` may wait, `instead(request)` answers in the controller's place,
    `loses(request)` says whether the reply of a request that was served gets lost.
    """

    def __init__(self, app: FastAPI | None) -> None:
        self.app = app
        self.seen: list[tuple[str, str]] = []
        self.before: Callable[[httpx.Request], Any] | None = None
        self.after: Callable[[httpx.Request, httpx.Response], Any] | None = None
        self.instead: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        self.loses: Callable[[httpx.Request], bool] = lambda request: False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport."""
        self.seen.append((request.method, request.url.path))
        if self.before:
            await self.before(request)
        if strange := self.instead(request):
            return strange
        if self.app is None:
            raise httpx.ConnectError("connection refused", request=request)
        response = await httpx.ASGITransport(self.app).handle_async_request(request)
        if self.loses(request):
            raise httpx.ReadError("the reply was lost", request=request)
        if self.after:
            await self.after(request, response)
        return response

    def count(self, method: str, part: str) -> int:
        """How many requests of this method had `part` in their path."""
        return sum(seen == method and part in path for seen, path in self.seen)


def agent_of(
    learner: Learner,
    line: Line,
    name: str = "anna",
    *,
    token: str | None = None,
    state: StateFile | None = None,
    local_file: Path | None = None,
    **settings: Any,
) -> Agent:
    """An agent as `app()` makes it, on the line."""
    client = Client(URL, token, transport=line, patience_s=None)
    return Agent(LearnerAtWork(learner, local_file), client, poll, m.JoinRequest(name=name), state=state, **settings)


@asynccontextmanager
async def running(*agents: Agent) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The agents at work; on the way out they are ended as by a signal."""
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(agent.run()) for agent in agents]
        yield tasks
        for task in tasks:
            task.cancel()


async def run_to_end(controller: InProcess, config: dict[str, Any]) -> m.Results:
    """Post a run and wait for its end."""
    client = controller.client()
    await client.start_run(config)
    await ended(controller)
    return await client.results()


async def ended(controller: InProcess) -> m.Run:
    """The latest run, once it is over."""

    async def over() -> m.Run | None:
        run = await controller.client().run()
        return run if run.state in m.TERMINAL else None

    found: m.Run = await until(over)
    return found
