"""Real processes on loopback: a controller, learners, a run."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from services.rest import Client
from tests.conftest import Process, Served, digits_learner, digits_learners, until

RUN = {"min_learners": 3, "termination": {"federation_rounds": 5}, "schedule": {"round_deadline_s": 60, "lease_s": 3}}


async def ended(client: Client) -> bool:
    """Whether the latest run is over."""
    return (await client.run()).state in ("completed", "failed", "stopped")


@pytest.mark.slow
async def test_three_learners_train_one_model_on_real_data(start: Callable[..., Process], served: Served) -> None:
    """Five rounds over HTTP reach 0.9 on the digits' test rows, and every round has all three updates."""
    digits_learners(start, served.url, 3)
    async with Client(served.url) as client:
        await client.start_run(RUN)
        await until(lambda: ended(client), 60)
        results = await client.results()
    assert (results.run.state, results.ended_by, len(results.rounds)) == ("completed", "federation_rounds", 5)
    assert all(len(one.completed) == 3 for one in results.rounds)
    accuracy = results.rounds[-1].evaluation_metrics.combined["accuracy"]
    assert accuracy is not None
    assert accuracy >= 0.9


@pytest.mark.slow
async def test_a_killed_learner_does_not_hang_the_run_and_comes_back(
    start: Callable[..., Process], served: Served
) -> None:
    """kill -9 in mid-run: the lease lapses, the round closes without it, and the restarted agent takes part again."""
    running = digits_learners(start, served.url, 3)
    async with Client(served.url) as client:
        await client.start_run(RUN | {"termination": {"federation_rounds": 400}})

        async def at_round(number: int) -> bool:
            return (await client.run()).round >= number

        await until(lambda: at_round(3), 30)
        running[2].kill(signal.SIGKILL)
        running[2].wait()

        async def without() -> bool:
            return any(len(one.completed) == 2 and one.state == "closed" for one in await client.rounds())

        await until(without, 30)
        digits_learner(start, served.url, 2, shares=3)

        async def back() -> bool:
            done = [one for one in await client.rounds() if one.state == "closed"]
            alone = max(one.round for one in done if len(one.completed) == 2)
            return any(len(one.completed) == 3 and one.round > alone for one in done)

        await until(back, 40)
        await client.stop_run()
        assert (await client.run()).state == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_learner_that_is_asked_to_end_leaves(
    start: Callable[..., Process], served: Served, number: int
) -> None:
    """SIGTERM and SIGINT: the agent leaves the federation and exits 0."""
    running = digits_learners(start, served.url, 1)
    async with Client(served.url) as client:
        await until(client.learners, 20)
        running[0].kill(number)
        assert running[0].wait(10) == 0, running[0].tail()
        assert await client.learners() == []


async def test_shutdown_ends_agents_and_controller(start: Callable[..., Process], served: Served) -> None:
    """POST /v1/shutdown: polls answer federation-over, agents and controller exit 0."""
    running = digits_learners(start, served.url, 3)
    async with Client(served.url) as client:

        async def all_here() -> bool:
            return len(await client.learners()) == 3

        await until(all_here, 20)
        await client.shutdown()
    assert [child.wait(20) for child in running] == [0, 0, 0]
    assert served.process.wait(20) == 0
