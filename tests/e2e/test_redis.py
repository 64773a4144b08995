"""A federation whose models live in Redis, and a Redis that is killed in the midst of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from services.rest import Client
from services.store import Redis
from services.weights import wire
from tests.conftest import Process, serve, until
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
LEARNERS, ROUNDS = 3, 24
RUN = {
    "min_learners": LEARNERS,
    "termination": {"federation_rounds": ROUNDS},
    "schedule": {"round_deadline_s": 60, "min_updates": LEARNERS},
}


def adding_learner(start: Callable[..., Process], url: str, share: int) -> Process:
    """The agent of one of them as a process."""
    what = ("-m", "learner_agent", "--controller", url, "--learner", "tests.e2e.adding_learner:make")
    name = f"learner-{share}"
    return start(name, *what, "--name", name, SHARE=str(share), PYTHONPATH=str(ROOT))


@pytest.mark.slow
async def test_a_run_survives_a_redis_that_is_killed(
    start: Callable[..., Process], own_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """Killed and started again twice, away for a second each time: the run completes, with every update once."""
    server = own_redis()
    served = await asyncio.to_thread(serve, start, tmp_path, "--model-store", "Redis", METIS_MODEL_STORE_URL=server.url)
    running = [adding_learner(start, served.url, share) for share in range(LEARNERS)]
    async with Client(served.url) as client:
        await client.start_run(RUN)

        async def at_round(number: int) -> bool:
            run = await client.run()
            assert run.state != "failed", run.reason
            return run.round >= number

        for number in (4, 12):
            await until(partial(at_round, number), 40)
            server.kill()
            await asyncio.sleep(1.0)
            assert (await client.run()).state not in ("completed", "failed")
            server.start()

        async def ended() -> bool:
            return (await client.run()).state in ("completed", "failed", "stopped")

        await until(ended, 90)
        results = await client.results()
        final = wire.decode(await client.run_model())
        assert results.run.state == "completed", results.run.reason
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{served.url}/metrics")).text
        felt = re.search(r'status="503"\} [1-9]', metrics)
        assert felt or "the model store is away" in served.process.log.read_text()
        everyone = [f"learner-{share}" for share in range(LEARNERS)]
        assert [sorted(one.completed) for one in results.rounds] == [everyone] * ROUNDS
        # Each round adds the mean of 1, 10 and 100: 37. One update more or less would show.
        assert np.allclose(final.arrays[0], 37.0 * ROUNDS)

        store = Redis(server.url)
        learners = [one.id for one in await client.learners()]

        async def nothing_owed() -> bool:
            return all(len(store.lineage(one)) == 1 for one in learners) and len(models(store)) <= LEARNERS + 3

        await until(nothing_owed, 30)  # the newest update of each, and a few community models
        for process in running:
            process.end()

        async def erased() -> bool:
            return not any(store.lineage(one) for one in learners) and len(models(store)) <= 3

        await until(erased, 20)
        assert all(b"sha256-" in key for key in models(store))
        store.close()


def models(store: Redis) -> list[bytes]:
    """The keys of the documents that Redis holds."""
    found: list[bytes] = store._client.keys("metis:model:*")
    return found
