"""Real processes on loopback: learners that are told by webhooks beside one that polls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from services.rest import Client
from tests.conftest import Process, Served, free_port, until
from tests.controller_api.webhooks.receiver import Receiver, receiving

RUN = {"min_learners": 3, "termination": {"federation_rounds": 3}, "schedule": {"round_deadline_s": 60}}


def learner(start: Callable[..., Process], url: str, index: int, *flags: str) -> Process:
    """A digits learner as a process, one of three."""
    return start(
        f"learner-{index}",
        *("-m", "learner_agent", "--controller", url, "--learner", "learner_agent.digits:digits_learner"),
        *("--name", f"learner-{index}", *flags),
        METIS_SHARD=str(index),
        METIS_NUM_SHARDS="3",
    )


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[tuple[Receiver, list[int]]]:
    """A proxy before a learner's port: what came through it, and what the learner answered."""
    answers: list[int] = []

    async def pass_on(receiver: Receiver) -> None:
        async with httpx.AsyncClient() as http:
            while True:
                with contextlib.suppress(TimeoutError):
                    one = (await receiver.came(len(answers) + 1))[len(answers)]
                    signed = {name: value for name, value in one.headers.items() if name.startswith("webhook-")}
                    answer = await http.post(f"http://127.0.0.1:{port}/poll-now", content=one.body, headers=signed)
                    answers.append(answer.status_code)

    async with receiving() as receiver, asyncio.TaskGroup() as group:
        passing = group.create_task(pass_on(receiver))
        yield receiver, answers
        passing.cancel()


async def test_learners_told_by_webhooks_and_one_that_polls_complete_a_run(
    start: Callable[..., Process], served: Served
) -> None:
    """Every round has the updates of all three; the webhooks were genuine, also by way of a proxy, and none failed."""
    port = free_port()
    async with Client(served.url) as client, proxy(port) as (outside, answers):
        agents = [
            learner(start, served.url, 0, "--listen", "localhost:0"),
            learner(start, served.url, 1, "--listen", f"127.0.0.1:{port}", "--callback-url", outside.url),
            learner(start, served.url, 2),
        ]
        await client.start_run(RUN)

        async def ended() -> bool:
            return (await client.run()).state in ("completed", "failed", "stopped")

        await until(ended, 60)
        results = await client.results()
        await client.shutdown()
        assert [await asyncio.to_thread(agent.wait, 20) for agent in agents] == [0, 0, 0]  # the proxy is at work
        assert answers
        assert set(answers) == {204}
    assert (results.run.state, len(results.rounds)) == ("completed", 3)
    assert all(len(one.completed) == 3 for one in results.rounds)
    assert "listening for webhooks" in agents[0].log.read_text()
    assert "webhook failed" not in served.process.log.read_text()


async def test_a_callback_that_is_not_allowed_ends_the_agent(start: Callable[..., Process], served: Served) -> None:
    """Exit status 1, and a line that says what to do."""
    agent = learner(start, served.url, 0, "--listen", "127.0.0.1:0", "--callback-url", "http://10.0.0.1:9000/")
    assert agent.wait(30) == 1
    assert "METIS_CALLBACK_NETWORKS" in agent.tail()


async def test_a_port_in_use_ends_the_agent(start: Callable[..., Process], served: Served) -> None:
    """Exit status 1, and the address, before anything is enrolled."""
    agent = learner(start, served.url, 0, "--listen", f"127.0.0.1:{served.port}")
    assert agent.wait(30) == 1
    assert f"cannot listen for webhooks on 127.0.0.1:{served.port}" in agent.tail()
    async with Client(served.url) as client:
        assert await client.learners() == []
