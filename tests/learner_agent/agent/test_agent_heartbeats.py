"""What goes on while a task is done: heartbeats, progress, and the word that it is no longer wanted."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from learner_agent import progress
from tests.conftest import InProcess, until
from tests.learner_agent.agents import ONE_ROUND, AddsOne, Line, agent_of, ended, run_to_end, running

LEASE_S = 0.6
SHORT_LEASE = ONE_ROUND | {"schedule": {"lease_s": LEASE_S, "round_deadline_s": 20}}


@pytest.fixture
def line(controller: InProcess) -> Line:
    """The way to the controller."""
    return Line(controller.app)


async def test_heartbeats_keep_the_lease_of_a_learner_that_trains(controller: InProcess, line: Line) -> None:
    """Training takes three leases, without a word from the learner, and the update counts."""
    learner = AddsOne(during=lambda config: threading.Event().wait(3 * LEASE_S))
    async with running(agent_of(learner, line)):
        results = await run_to_end(controller, SHORT_LEASE)
    assert results.rounds[0].completed == ["anna"]
    assert line.count("POST", "/heartbeat") >= 3


@pytest.mark.parametrize("slow", ["GET /v1/models/", "PUT /v1/tasks/"], ids=["download", "upload"])
async def test_heartbeats_keep_the_lease_of_a_learner_on_a_slow_line(
    controller: InProcess, line: Line, slow: str
) -> None:
    """Each transfer takes until five more heartbeats were sent, which is longer than the lease."""
    method, path = slow.split()

    async def hold(request: httpx.Request) -> None:
        if request.method == method and path in request.url.path:
            enough = line.count("POST", "/heartbeat") + 5

            async def beats() -> bool:
                return line.count("POST", "/heartbeat") >= enough

            await until(beats)

    line.before = hold
    learner = AddsOne()
    async with running(agent_of(learner, line)):
        results = await run_to_end(controller, SHORT_LEASE)
    assert results.rounds[0].completed == ["anna"]
    assert learner.calls.count("train") == 1


async def test_progress_is_seen_while_a_learner_trains(controller: InProcess, line: Line) -> None:
    """In GET /v1/learners; gone when the task is done."""
    seen = threading.Event()

    def report(config: dict[str, Any]) -> None:
        progress(epoch=1, batch=3, loss=0.25)
        assert seen.wait(20)

    async with running(agent_of(AddsOne(during=report), line)):
        await controller.client().start_run(ONE_ROUND)

        async def shown() -> Any:
            learners = (await controller.http.get("/v1/learners")).json()
            return learners[0].get("progress") if learners else None

        assert await until(shown) == {"epoch": 1, "batch": 3, "loss": 0.25}
        seen.set()
        await ended(controller)
        assert await shown() is None


async def test_progress_ends_a_training_that_is_no_longer_wanted(controller: InProcess, line: Line) -> None:
    """The run is stopped in mid-training: progress() raises TaskVoid, nothing is sent, the next run works."""
    raised: list[str] = []

    def until_void(config: dict[str, Any]) -> None:
        deadline = time.monotonic() + 20
        while config["round"] == 1 and not raised and time.monotonic() < deadline:
            try:
                progress(batch=1)
            except Exception as error:
                raised.append(f"{type(error).__name__}: {error}")
                raise
            threading.Event().wait(0.01)

    learner = AddsOne(during=until_void)
    async with running(agent_of(learner, line)):
        client = controller.client()
        await client.start_run(SHORT_LEASE)

        async def training() -> bool:
            return "train" in learner.calls

        await until(training)
        await client.stop_run(reason="enough")
        results = await run_to_end(controller, ONE_ROUND)
    assert len(raised) == 1
    assert raised[0].startswith("TaskVoid: ")
    assert "enough" in raised[0]
    assert results.run.state == "completed"
    assert line.count("PUT", "/result") == 3  # the first run's initial weights, the second's and its update
    assert line.count("PUT", "/scores") == 1
    assert line.count("POST", "/failure") == 0


async def test_a_learner_busy_with_what_is_no_longer_wanted_is_still_here(controller: InProcess, line: Line) -> None:
    """It does not call progress(): it trains on for three leases, is never lost, and its result is not sent."""
    done = threading.Event()
    learner = AddsOne(during=lambda config: done.wait(20))
    async with running(agent_of(learner, line)):
        client = controller.client()
        await client.start_run(SHORT_LEASE)

        async def training() -> bool:
            return "train" in learner.calls

        await until(training)
        await client.stop_run()
        await client.start_run(SHORT_LEASE | {"min_learners": 2})  # waits, with the same short lease
        before = line.count("POST", "/heartbeat")

        async def beats_go_on() -> bool:
            return line.count("POST", "/heartbeat") >= before + 9

        await until(beats_go_on)
        kinds = [event.kind for event in controller.app.state.runtime.events.after(0)]
        assert "learner-lost" not in kinds
        polls = line.count("GET", "/task")
        done.set()

        async def asks_for_more() -> bool:
            return line.count("GET", "/task") > polls

        await until(asks_for_more)
        await client.stop_run()
    assert line.count("PUT", "/result") == 1  # the initial weights


async def test_agents_of_one_process_do_not_share_a_report(controller: InProcess, line: Line) -> None:
    """Two learners train at once; each one's progress is its own."""
    barrier = threading.Barrier(2, timeout=20)
    seen = threading.Event()

    def report(number: int) -> Any:
        def during(config: dict[str, Any]) -> None:
            barrier.wait()
            progress(epoch=number)
            assert seen.wait(20)

        return during

    both = [agent_of(AddsOne(during=report(number)), line, name) for number, name in ((1, "anna"), (2, "bert"))]
    async with running(*both):
        await controller.client().start_run(ONE_ROUND | {"min_learners": 2})

        async def shown() -> Any:
            learners = (await controller.http.get("/v1/learners")).json()
            told = {one["name"]: (one.get("progress") or {}).get("epoch") for one in learners}
            return told if all(told.values()) else None

        assert await until(shown) == {"anna": 1, "bert": 2}
        seen.set()
        await ended(controller)
