"""A controller that stands still (SIGSTOP, a loop that is blocked) counts none of that time against a learner.

Learners are silent but for heartbeats: no waiting poll holds their lease. Each stop takes longer than the lease and
than every deadline of the run.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from services import messages as m
from services.errors import RoundClosed
from services.rest import Client
from services.weights.wire import decode, encode, name_tensors
from tests.conftest import until
from tests.faults.figures import record
from tests.faults.judging import controller_in
from tests.faults.processes import ControllerProcess

pytestmark = pytest.mark.slow
LEASE_S, DEADLINE_S = 1.5, 2.0  # of the runs
STOPPED_S = 2 * LEASE_S
BUSY_S = 3.0  # for which a busy machine may make it stand still beside
MARKS = {"anna": 1.0, "bert": 2.0}  # what each of them trains every model to
RUN: dict[str, Any] = {
    "min_learners": len(MARKS),
    "scaling_factor": "NumParticipants",
    "schedule": {
        "lease_s": LEASE_S,
        "round_deadline_s": DEADLINE_S,
        "join_deadline_s": DEADLINE_S,
        "min_updates": 1,  # so that a round could close without the other
    },
    "termination": {"federation_rounds": 2},
}
ALL_REPORTED = "2 of 2 members reported"


@dataclass
class Silent:
    """A learner that sends heartbeats, asks for its task without waiting, and does it when it is told to."""

    client: Client
    me: m.Learner
    mark: float

    async def beat(self) -> None:
        """A sign of life three times a lease, for ever."""
        while True:
            await self.client.heartbeat(self.me.id)
            await asyncio.sleep(LEASE_S / 3)

    async def task(self, kind: str) -> m.Task:
        """The task of this kind that it must get soon."""

        async def given() -> m.Task | None:
            return await self.client.next_task(self.me.id, wait_s=0)

        task: m.Task = await until(given, DEADLINE_S)
        assert task.kind == kind
        return task

    async def do(self, task: m.Task) -> None:
        """It, with the learner's mark."""
        if task.kind == "evaluate":
            scores = m.EvaluationResult(metrics={"accuracy": 0.5}, metadata={"num_evaluation_examples": 1})
            await self.client.submit_evaluation(task, scores)
        else:
            tensors = name_tensors([np.full(4, self.mark, np.float32)])
            told = {"num_training_examples": 1} if task.kind == "train" else {}
            await self.client.submit(task, encode(tensors, metadata=told))


@dataclass
class Stage:
    """A controller with its learners, and who may stop it."""

    controller: ControllerProcess
    operator: Client
    learners: list[Silent] = field(default_factory=list)
    beating: list[asyncio.Task[None]] = field(default_factory=list)
    stops: int = 0

    async def join(self, name: str) -> None:
        """One more learner."""
        client = Client(self.controller.url, patience_s=20.0)
        one = Silent(client, await client.join(m.JoinRequest(name=name)), MARKS[name])
        self.learners.append(one)
        self.beating.append(asyncio.create_task(one.beat()))

    async def stop(self) -> None:
        """Let the controller stand still for twice the lease."""
        self.stops += 1
        await self.controller.freeze(STOPPED_S)

    async def blocked(self) -> bool:
        """Whether it does not answer at the moment."""
        async with httpx.AsyncClient(base_url=self.controller.url, trust_env=False, timeout=0.2) as http:
            try:
                await http.get("/healthz")
            except httpx.ReadTimeout:
                return True
        return False

    async def all_do(self, kind: str) -> None:
        """Each does the task of this kind that it must have."""
        for one in self.learners:
            await one.do(await one.task(kind))

    async def init(self) -> Silent:
        """Whoever is asked for the first model, once it has been asked."""

        async def asked() -> Silent | None:
            for one in self.learners:
                if await one.client.next_task(one.me.id, wait_s=0):
                    return one
            return None

        found: Silent = await until(asked, DEADLINE_S)
        return found

    async def begin(self, **config: Any) -> None:
        """The learners in a run that has its first model."""
        for name in MARKS:
            await self.join(name)
        await self.operator.start_run({**RUN, **config})
        first = await self.init()
        await first.do(await first.task("init"))

    async def finish(self, *kinds: str) -> None:
        """The rest of the run: each does a task of each of these kinds."""
        for kind in kinds:
            await self.all_do(kind)


@asynccontextmanager
async def stage(folder: Path, failpoint: str | None = None) -> AsyncIterator[Stage]:
    """Nobody has joined."""
    async with controller_in(folder, failpoint) as controller, Client(controller.url, patience_s=20.0) as operator:
        there = Stage(controller, operator)
        try:
            yield there
        finally:
            for task in there.beating:
                task.cancel()
            await asyncio.gather(*there.beating, return_exceptions=True)
            for one in there.learners:
                await one.client.close()


async def waiting(there: Stage) -> None:
    """While the run waits for a second learner."""
    await there.join("anna")
    await there.operator.start_run(RUN)
    await there.stop()
    await there.join("bert")
    first = await there.init()
    await first.do(await first.task("init"))
    await there.finish("train", "evaluate", "train", "evaluate")


async def initializing(there: Stage) -> None:
    """While the first model is made."""
    for name in MARKS:
        await there.join(name)
    await there.operator.start_run(RUN)
    first = await there.init()
    task = await first.task("init")
    await there.stop()
    await first.do(task)
    await there.finish("train", "evaluate", "train", "evaluate")


async def training(there: Stage) -> None:
    """While one has trained and the other trains: the quorum is there."""
    await there.begin()
    anna, bert = there.learners
    await anna.do(await anna.task("train"))
    task = await bert.task("train")
    await there.stop()
    await bert.do(task)
    await there.finish("evaluate", "train", "evaluate")


async def aggregating(there: Stage) -> None:
    """While it is blocked in an aggregation anyway."""
    await there.begin()
    anna, bert = there.learners
    await anna.do(await anna.task("train"))
    last = asyncio.create_task(bert.do(await bert.task("train")))
    await until(there.blocked, DEADLINE_S)
    await there.stop()
    await last
    await there.finish("evaluate", "train", "evaluate")


async def evaluating(there: Stage) -> None:
    """While one has evaluated and the other evaluates."""
    await there.begin()
    await there.all_do("train")
    anna, bert = there.learners
    await anna.do(await anna.task("evaluate"))
    task = await bert.task("evaluate")
    await there.stop()
    await bert.do(task)
    await there.finish("train", "evaluate")


async def asynchronous(there: Stage) -> None:
    """While both train and no round can be waited for."""
    await there.begin(
        scheduler="Asynchronous",
        aggregation_rule="FedBuff",
        aggregation={"buffer_size": 2},
        evaluation={"every": 0},
    )
    tasks = [await one.task("train") for one in there.learners]
    await there.stop()
    for one, task in zip(there.learners, tasks, strict=True):
        await one.do(task)
    await there.finish("train")


async def judged(there: Stage, fault: str) -> None:
    """Nobody was lost, no round was closed by a deadline, and every update counts; all of it goes into the figures."""

    async def ended() -> bool:
        return (await there.operator.run()).state in m.TERMINAL

    await until(ended, DEADLINE_S)
    results = await there.operator.results()
    model = decode(await there.operator.run_model()).arrays[0]
    told = await events_of(there.operator)
    lost = sum(len(MARKS) - len(one.completed) for one in results.rounds)
    silent = [one.text for one in told if one.kind == "learner-lost"]
    well = not silent and not lost and results.run.state == "completed"
    record(fault, tried=there.stops, survived=there.stops if well else 0, lost=lost, twice=0)
    assert (results.run.state, results.run.reason) == ("completed", "2 rounds are done")
    assert silent == []
    assert [sorted(one.completed) for one in results.rounds] == [sorted(MARKS)] * 2
    assert {one.closed_by for one in results.rounds} <= {ALL_REPORTED, "2 updates arrived"}
    if all(one.closed_by == ALL_REPORTED for one in results.rounds):
        assert model.tolist() == [1.5] * 4
        assert all(len(one.evaluation_metrics.learners) == 2 for one in results.rounds)


async def events_of(operator: Client) -> list[m.Event]:
    """The log from its beginning to the run's end."""
    found = []
    async with asyncio.timeout(10):
        async for event in operator.events(after=0):
            found.append(event)
            if event.kind == "run-ended":
                break
    return found


async def stalled_s(controller: ControllerProcess) -> float:
    """How long it stood still, as it tells in its metrics."""
    async with httpx.AsyncClient(base_url=controller.url, trust_env=False, timeout=10) as http:
        text = (await http.get("/metrics")).text
    (value,) = re.findall(r"^metis_stalled_seconds_total (\S+)$", text, re.MULTILINE)
    return float(value)


States = Callable[[Stage], Awaitable[None]]
STATES: list[States] = [waiting, initializing, training, aggregating, evaluating, asynchronous]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_a_stopped_controller_loses_nobody(state: States, tmp_path: Path) -> None:
    """Stopped for twice the lease, longer than any deadline, it goes on as if nothing had happened, and says so."""
    blocked = f"aggregation-begun:sleep={LEASE_S}" if state is aggregating else None
    async with stage(tmp_path, blocked) as there:
        await state(there)
        await judged(there, "controller stopped for twice the lease")
        assert there.stops == 1
        assert len(re.findall("stood still", there.controller.tail())) == 1
        assert STOPPED_S - 0.5 < await stalled_s(there.controller) < STOPPED_S + BUSY_S


async def test_a_blocked_loop_loses_nobody(tmp_path: Path) -> None:
    """The same when a piece of the controller's own work takes that long: the first update of round 1 is counted, and
    nothing else happens meanwhile."""
    async with stage(tmp_path, f"update-counted:sleep={STOPPED_S}") as there:
        await there.begin()
        began = time.monotonic()
        await there.finish("train", "evaluate", "train", "evaluate")
        there.stops = 1
        await judged(there, "controller's loop blocked for twice the lease")
        assert time.monotonic() - began > STOPPED_S
        assert STOPPED_S - 0.5 < await stalled_s(there.controller) < STOPPED_S + BUSY_S


async def test_deadlines_still_end_what_they_must(tmp_path: Path) -> None:
    """A stop only moves the end of a round: who goes on being silent is not waited for longer than was left."""
    async with stage(tmp_path) as there:
        await there.begin()
        anna, bert = there.learners
        await anna.do(await anna.task("train"))
        late = await bert.task("train")
        await there.stop()
        began = time.monotonic()

        async def closed() -> str | None:
            return (await there.operator.rounds())[0].closed_by

        assert await until(closed, 3 * DEADLINE_S) == "deadline, with 1 updates"
        assert DEADLINE_S / 2 < time.monotonic() - began < DEADLINE_S + 1
        with pytest.raises(RoundClosed):
            await bert.do(late)
