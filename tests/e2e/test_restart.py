"""A controller that is killed and started again in the middle of a run that `metis run` follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.rest import Client
from tests.conftest import Process, serve, until
from tests.e2e.test_redis import adding_learner

LEARNERS, ROUNDS = 2, 12


@pytest.mark.slow
async def test_the_driver_follows_the_same_run_to_its_end(start: Callable[..., Process], tmp_path: Path) -> None:
    """Nobody does anything: learners and driver wait for the controller, every round is in the results once, and the
    driver ends with status 0, having said what it waited for."""
    served = await asyncio.to_thread(serve, start, tmp_path)
    running = [adding_learner(start, served.url, share) for share in range(LEARNERS)]
    where = ("--controller", served.url, "--out", str(tmp_path / "results.json"))
    numbers = ("--learners", str(LEARNERS), "--rounds", str(ROUNDS))
    driver = start("driver", "-m", "driver_cli", "run", *where, *numbers)
    async with Client(served.url) as client:

        async def under_way() -> bool:
            runs = await client.runs()
            return bool(runs) and runs[0].round >= 3

        await until(under_way, 30)
        served.process.kill()
        served.process.wait()

        async def noticed() -> bool:
            return "waiting for the controller" in driver.log.read_text()

        await until(noticed, 20)
        await asyncio.to_thread(serve, start, tmp_path, port=served.port)
        before = await client.run()
    assert await asyncio.to_thread(driver.wait, 90) == 0, driver.tail()
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["run"]["id"], results["run"]["state"]) == (before.id, "completed")
    assert [one["round"] for one in results["rounds"]] == list(range(1, ROUNDS + 1))
    assert all(len(one["completed"]) == LEARNERS for one in results["rounds"])
    assert [one.child.poll() for one in running] == [None, None]
