"""kill -9 of a controller whose models are in Redis: the same as with models on its own disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services import messages as m
from services.errors import UnknownRun
from services.rest import Client
from services.store import Redis
from tests.conftest import Process
from tests.faults.federation import IN_FULL, retry_quickly, story_of
from tests.faults.figures import record
from tests.faults.judging import Verdict, calm_story, judge
from tests.faults.processes import HOST, ControllerProcess
from tests.redis_server import RedisServer

SEEDS = range(6) if IN_FULL else (0, 6)
KILLS_A_RUN = 4  # at most: none is counted that finds no run, or one that has ended
AGAIN_S = 0.05  # until learners are back
PATIENCE_S = 30.0  # with a start that the run's end finds under way


class WithRedis(ControllerProcess):
    """A controller whose models are in that server, under a prefix of the controller's own."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        super().__init__(folder, "Redis")
        self.prefix = f"{folder.name}:"
        self._place = {"METIS_MODEL_STORE_URL": server.url, "METIS_MODEL_STORE_PREFIX": self.prefix}

    def launch(self, failpoint: str | None = None) -> None:
        """See ControllerProcess.launch; there are no failpoints here."""
        where = ("--host", HOST, "--port", str(self.port), "--data-dir", str(self.folder / "data"))
        flags = ("--model-store", self._store, "--log-level", "warning")
        log = self.folder / "controller.log"
        self._process = Process(log, "-m", "controller_api", *where, *flags, cwd=self.folder, **self._place)


@contextlib.asynccontextmanager
async def started(folder: Path, server: RedisServer) -> AsyncIterator[WithRedis]:
    """One that answers; ended on leaving."""
    controller = WithRedis(folder, server)
    try:
        assert await controller.start(), controller.tail()
        yield controller
    finally:
        controller.close()


class Kills:
    """At moments drawn from the length of a calm run, as long as the run goes on; `in_run` counts those during it."""

    def __init__(self, seed: int, length_s: float) -> None:
        draw, longest = random.Random(f"redis {seed}"), length_s + AGAIN_S * KILLS_A_RUN
        self.in_run = 0
        self._moments = sorted(draw.uniform(0, longest) for _ in range(KILLS_A_RUN))

    async def __call__(self, controller: ControllerProcess) -> None:
        """See the class."""
        up = 0.0
        async with Client(controller.url) as operator:
            for moment in self._moments:
                await asyncio.sleep(moment - up)
                up, state = moment, None
                with contextlib.suppress(UnknownRun):
                    state = (await operator.run()).state
                if state in m.TERMINAL:
                    return
                await controller.kill()
                self.in_run += state is not None
                assert await controller.start(), controller.tail()


def held_by(server: RedisServer, controller: WithRedis, digest: str | None) -> str:
    """The digest of what is in Redis under one."""
    store = Redis(server.url, prefix=controller.prefix)
    try:
        return f"sha256-{hashlib.sha256(store.get(digest or '')).hexdigest()}"
    finally:
        store.close()


async def broken(folder: Path, server: RedisServer, seed: int) -> Verdict:
    """A run with kills against a calm one with models on a disk; its `faults` are the kills in the run."""
    calm = await calm_story(folder, seed)
    kills = Kills(seed, calm.seconds)
    async with started(folder / f"seed-{seed}", server) as controller:
        story = await story_of(controller, seed, calm.kind, kills, PATIENCE_S)
        verdict = judge(story, calm)
        verdict.faults = kills.in_run
        if verdict.survived and (held := held_by(server, controller, calm.results.model)) != calm.results.model:
            verdict.problems.append(f"Redis holds {held} in place of {calm.results.model}")
        if verdict.problems:
            verdict.problems.append(f"the controller said: {controller.tail()}")
        return verdict


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_controller_that_is_killed_with_its_models_in_redis(
    own_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten rounds, killed several times at random: the same models bit by bit as on a disk, in Redis too, no update
    lost, none counted twice, none trained again."""
    retry_quickly(monkeypatch)
    server = own_redis()
    verdicts = [await broken(tmp_path, server, seed) for seed in SEEDS]
    record(
        "controller killed, models in Redis",
        tried=sum(one.faults for one in verdicts),
        survived=sum(one.faults for one in verdicts if one.survived),
        lost=sum(one.lost for one in verdicts),
        twice=sum(one.twice for one in verdicts),
        longest_wait_s=max(one.longest_wait_s for one in verdicts),
    )
    wrong = [f"seed {one.seed}: {problem}" for one in verdicts for problem in one.problems]
    assert not wrong, "\n".join(wrong)
    assert sum(one.faults for one in verdicts) >= 2 * len(SEEDS)
