"""A federation to break: three learners whose every value is known beforehand, and what became of their updates."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

import learner_agent.agent.agent
import services.rest.client
from learner_agent import Learner
from learner_agent.agent import Agent, LearnerAtWork, poll
from services import messages as m
from services.process import Workers
from services.rest import Client, FullJitter
from services.weights import Buffer
from tests.conftest import until
from tests.faults.processes import ControllerProcess

T = TypeVar("T")
IN_FULL = os.environ.get("METIS_FAULTS") == "all"
AT_ONCE = 2  # federations, one for each core
LEARNERS, ROUNDS = 3, 10
SIZES = (20_000, 400_000, 300)  # parameters: the second is sent in several pieces, and resumed after a cut
EXTRAS: dict[str, dict[str, Any]] = {  # what a run has beside FedAvg, and what of it must survive its controller
    "nothing": {},
    "server optimizer": {"server_optimizer": "FedAdam"},  # its moments
    "transform": {  # its bound, which all updates exceed at first
        "transforms": [{"name": "AdaptiveClipNorm", "initial_norm": 1.0, "learning_rate": 1.0}]
    },
    "encoding": {"encoding": {"down": "bf16", "up": "topk", "topk_ratio": 0.25}},  # models, and what learners still owe
    "algorithm": {"algorithm": "SCAFFOLD"},  # the control
}
LONGEST_WORK_S = 0.03  # of a task
LIMIT_S = 100.0  # of a run with all that happens to it
RUN: dict[str, Any] = {
    "min_learners": LEARNERS,
    "schedule": {"min_updates": LEARNERS, "round_deadline_s": LIMIT_S},
    "termination": {"federation_rounds": ROUNDS},
}
Breaking = Callable[[ControllerProcess], Coroutine[Any, Any, None]]
Answer = tuple[str, str, str, int]  # kind, learner, run, round


def retry_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come back within a third of a second instead of half a minute."""
    quick = functools.partial(FullJitter, first_s=0.05, longest_s=0.3)
    monkeypatch.setattr(services.rest.client, "FullJitter", quick)
    monkeypatch.setattr(learner_agent.agent.agent, "FullJitter", quick)


@dataclass(frozen=True)
class Kind:
    """What a run is like: parameters of its model, and one of EXTRAS."""

    size: int
    extra: str

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of such a run."""
        return {**RUN, **EXTRAS[self.extra]}


def kind_of(seed: int) -> Kind:
    """The kind that a seed chooses; fifteen in a row choose all."""
    turn, extra = divmod(seed, len(EXTRAS))
    return Kind(SIZES[turn % len(SIZES)], list(EXTRAS)[extra])


class Drifts(Learner):
    """Trains 0.9 times what it is given and 0.01 · number · round, in float32; scores 1 / (1 + mean). A control moves
    what it trains by a tenth, and is itself halved and moved by as much as the model.
    """

    names = ("body", "head")

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self._size = size

    def get_weights(self) -> list[NDArray[Any]]:
        """The same numbers at every learner."""
        body = np.random.default_rng(7).standard_normal(self._size, dtype=np.float32)
        return [body, np.ones(3, np.float32)]

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """It has no model of its own."""

    def train(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """See the class."""
        step = np.float32(0.01 * self.number * config["round"])
        trained = [array * np.float32(0.9) + step for array in weights]
        metadata: dict[str, Any] = {"num_training_examples": 10 * self.number + 3}
        if control := config.get("inputs", {}).get("control"):
            trained = [array - np.float32(0.1) * c for array, c in zip(trained, control, strict=True)]
            metadata["extra"] = {"control": [step - np.float32(0.5) * c for c in control]}
        return trained, {"step": float(step)}, metadata

    def evaluate(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """See the class."""
        mean = float(np.mean(np.abs(weights[0]), dtype=np.float64))
        return {"accuracy": 1.0 / (1.0 + mean), "num_evaluation_examples": self.number}


@dataclass
class Diary:
    """What the learners of a federation did and were told."""

    trained: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # learner, run, round
    acknowledged: set[Answer] = field(default_factory=set)
    asked_again: list[Answer] = field(default_factory=list)  # for what had been acknowledged
    longest_wait_s: float = 0.0  # without an acknowledged result, or without a learner before the first
    _last: float = field(default_factory=time.monotonic)

    def asked(self, task: m.Task, learner: str) -> None:
        """A learner was given a task."""
        if (one := (task.kind, learner, task.run_id, task.round)) in self.acknowledged:
            self.asked_again.append(one)

    def told(self, task: m.Task, learner: str) -> None:
        """A result of a task was acknowledged."""
        self.acknowledged.add((task.kind, learner, task.run_id, task.round))
        now = time.monotonic()
        self.longest_wait_s, self._last = max(self.longest_wait_s, now - self._last), now


class Watched(Client):
    """A learner's client; writes into the diary. Never gives up."""

    def __init__(self, url: str, name: str, diary: Diary) -> None:
        super().__init__(url, patience_s=None)
        self._name, self._diary = name, diary

    async def next_task(self, learner_id: str, wait_s: float = 30.0) -> m.Task | None:
        """See Client.next_task."""
        task = await super().next_task(learner_id, wait_s)
        if task is not None:
            self._diary.asked(task, self._name)
        return task

    async def submit(self, task: m.Task, parts: Sequence[Buffer]) -> m.Receipt:
        """See Client.submit."""
        receipt = await super().submit(task, parts)
        self._diary.told(task, self._name)
        return receipt

    async def submit_evaluation(self, task: m.Task, result: m.EvaluationResult) -> m.Receipt:
        """See Client.submit_evaluation."""
        receipt = await super().submit_evaluation(task, result)
        self._diary.told(task, self._name)
        return receipt


class Counted(LearnerAtWork):
    """Counts the trainings of each round."""

    def __init__(self, learner: Learner, name: str, diary: Diary) -> None:
        super().__init__(learner)
        self._name, self._diary = name, diary

    def train(self, model: Any, task: m.Task, *frame: Any) -> list[Buffer]:
        """See LearnerAtWork.train."""
        self._diary.trained[self._name, task.run_id, task.round] += 1
        return super().train(model, task, *frame)


class Unhurried(Workers):
    """Each call takes a moment, another one for each seed."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__(0)
        self._draw = draw

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """See Workers.run."""
        await asyncio.sleep(self._draw.uniform(0, LONGEST_WORK_S))
        return call(*arguments)


@asynccontextmanager
async def learners(url: str, seed: int, size: int) -> AsyncIterator[Diary]:
    """Three agents at work; the seed says in which order they come, and how long each task takes them."""
    diary, draw = Diary(), random.Random(seed)
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        running = []
        for number in draw.sample(range(LEARNERS), LEARNERS):
            name = f"learner-{number}"
            client = await stack.enter_async_context(Watched(url, name, diary))
            work = Counted(Drifts(number, size), name, diary)
            workers = Unhurried(random.Random(draw.random()))
            agent = Agent(work, client, poll, m.JoinRequest(name=name), workers=workers)
            running.append(group.create_task(agent.run()))
        yield diary
        for one in running:
            one.cancel()


@dataclass
class Story:
    """A run and what happened to it."""

    seed: int
    kind: Kind
    deaths: int
    results: m.Results
    diary: Diary
    seconds: float  # until the run's end


async def story_of(
    controller: ControllerProcess, seed: int, kind: Kind, breaking: Breaking | None = None, patience_s: float = LIMIT_S
) -> Story:
    """A run of ten rounds, with `breaking` at work on the controller, for up to `patience_s` after the run's end.

    The results are those of one more process, after one more kill: an end that was seen stays the end.
    """
    async with (
        asyncio.timeout(LIMIT_S),
        learners(controller.url, seed, kind.size) as diary,
        Client(controller.url, patience_s=None) as client,
    ):
        began = time.monotonic()
        async with at_work(breaking, controller) as breaker:
            await client.start_run(kind.config)
            await over(client)
            seconds = time.monotonic() - began
            await asyncio.wait({breaker}, timeout=patience_s)
            deaths = controller.deaths
        await controller.restart()
        return Story(seed, kind, deaths, await client.results(), diary, seconds)


async def over(client: Client) -> None:
    """Wait for the run's end."""

    async def ended() -> bool:
        return (await client.run()).state in m.TERMINAL

    await until(ended, LIMIT_S)


@asynccontextmanager
async def at_work(breaking: Breaking | None, controller: ControllerProcess) -> AsyncIterator[asyncio.Task[None]]:
    """Break meanwhile; what goes wrong with it ends the whole at once."""

    async def nothing(controller: ControllerProcess) -> None:
        """Leave it alone."""

    async with asyncio.TaskGroup() as group:
        breaker = group.create_task((breaking or nothing)(controller))
        try:
            yield breaker
        finally:
            breaker.cancel()
