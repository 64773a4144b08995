"""A controller that is killed before it has answered an upload: its agents send again what they have, or start anew."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services import messages as m
from services.rest import Client
from services.weights import wire
from tests.conftest import Process, Served, serve, until

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 3
RUN: dict[str, Any] = {"termination": {"federation_rounds": ROUNDS}, "schedule": {"round_deadline_s": 60}}


def counting(start: Callable[..., Process], folder: Path, url: str) -> Process:
    """The agent of the learner that counts."""
    what = ("-m", "learner_agent", "--controller", url, "--learner", "tests.e2e.counting_learner:make")
    return start("counts", *what, "--name", "counts", TRAINED=str(folder / "trained"), PYTHONPATH=str(ROOT))


async def killed_in_round_2(
    start: Callable[..., Process], folder: Path, store: str, point: str
) -> tuple[Process, Served, m.Learner]:
    """An agent whose controller died at a point of the upload of round 2, and that controller started again."""
    first = await asyncio.to_thread(serve, start, folder, "--model-store", store, METIS_FAILPOINT=f"{point}:2")
    agent = counting(start, folder, first.url)
    async with Client(first.url) as client:
        (learner,) = await until(client.learners, 20)
        await client.start_run(RUN)
    assert await asyncio.to_thread(first.process.wait, 20) == -signal.SIGKILL
    assert trained(folder) == ["1", "2"]
    again = await asyncio.to_thread(serve, start, folder, "--model-store", store, port=first.port)
    return agent, again, learner


def trained(folder: Path) -> list[str]:
    """The rounds that the learner trained for, as often as it did."""
    return (folder / "trained").read_text().split()


async def completed(client: Client) -> m.Results:
    """The results of the newest run, once it is completed."""

    async def over() -> bool:
        run = await client.run()
        return run.state in m.TERMINAL

    await until(over, 60)
    results = await client.results()
    assert results.run.state == "completed", results.run.reason
    return results


@pytest.mark.parametrize("point", ["update-stored", "update-counted", "update-kept"])
async def test_a_result_is_sent_again_and_nothing_is_trained_twice(
    start: Callable[..., Process], tmp_path: Path, point: str
) -> None:
    """Whether the update was counted or not: the same run goes on, each round trains once and adds 1 once."""
    agent, again, learner = await killed_in_round_2(start, tmp_path, "OnDisk", point)
    async with Client(again.url) as client:
        results = await completed(client)
        final = wire.decode(await client.run_model()).arrays[0]
        assert [one.id for one in await client.learners()] == [learner.id]
    assert trained(tmp_path) == ["1", "2", "3"]
    assert [one.completed for one in results.rounds] == [["counts"]] * ROUNDS
    assert set(final.tolist()) == {float(ROUNDS)}
    assert agent.child.poll() is None


@pytest.mark.slow
async def test_an_agent_outlives_a_controller_that_forgot_it(start: Callable[..., Process], tmp_path: Path) -> None:
    """With InMemory nothing is kept: the result that is sent again is refused with 401, the agent enrols anew and takes
    part in the next run."""
    agent, again, learner = await killed_in_round_2(start, tmp_path, "InMemory", "update-kept")
    async with Client(again.url) as client:
        (known,) = await until(client.learners, 40)
        assert (known.name, known.id == learner.id) == ("counts", False)
        assert trained(tmp_path) == ["1", "2"]
        await client.start_run(RUN)
        await completed(client)
    assert trained(tmp_path) == ["1", "2", "1", "2", "3"]
    assert agent.child.poll() is None
    assert "does not know this learner any more" in agent.log.read_text()
    async with httpx.AsyncClient() as http:
        metrics = (await http.get(f"{again.url}/metrics")).text
    assert re.search(r'method="PUT",route="/v1/tasks/\{task_id\}/result",status="401"\} 1', metrics)
