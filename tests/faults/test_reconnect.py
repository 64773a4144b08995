"""A thousand learners lose their connections at once and come back at once: all are in soon, and the rest is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from driver_cli.bench.counters import memory_kib
from driver_cli.bench.idle import raise_file_limit
from services.messages import TERMINAL
from services.rest import Client
from services.wire import decode, encode, name_tensors
from tests.conftest import until
from tests.faults.crowd import SIZE
from tests.faults.federation import IN_FULL
from tests.faults.figures import record
from tests.faults.judging import controller_in
from tests.faults.processes import ControllerProcess

LEARNERS = 1000 if IN_FULL else 100
ALL_IN_S = 60.0
CONTROL_S = 1.0  # the slowest of a hundred control calls
MEMORY_MB = 150.0
CUTS = 5  # one after the other: what one leaves in memory would add up
HEARTBEAT_EVERY_S, STATUS_EVERY_S = 0.05, 0.5  # of the control calls; a status names every learner
Call = Callable[[], Awaitable[httpx.Response]]
ROOT = Path(__file__).parents[2]
EVENTS = ("cut", "killed", "killed in a round")
NAMES = {
    "cut": f"{LEARNERS:,} learners cut off at once",
    "killed": f"controller killed, {LEARNERS:,} learners come back at once",
    "killed in a round": f"controller killed in a round, {LEARNERS:,} learners come back at once",
}


class Told:
    """The learners, in a process of their own; `ask` tells them something and gives what they have seen."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, question: str = "state") -> dict[str, Any]:
        """Raises when a learner was told what it should not be."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{question}\n".encode())
        state: dict[str, Any] = json.loads(await self._process.stdout.readline())
        assert state["problems"] == [], state
        return state

    async def until(self, name: str, count: int, seconds: float = ALL_IN_S) -> dict[str, Any]:
        """Their state when so many are in, have a task, or were accepted."""

        async def there() -> dict[str, Any]:
            state = await self.ask()
            return state if state[name] == count else {}

        found: dict[str, Any] = await until(there, seconds)
        return found


@asynccontextmanager
async def crowd(controller: ControllerProcess) -> AsyncIterator[Told]:
    """All of them enrolled and polling."""
    raise_file_limit(LEARNERS + 200)
    command = [sys.executable, "-m", "tests.faults.crowd", str(controller.port), str(LEARNERS)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT)
    told = Told(process)
    try:
        await told.until("in", LEARNERS)
        yield told
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Probe:
    """Control calls at a steady pace, none of which waits for another: how long each took, and the most memory."""

    def __init__(self, http: httpx.AsyncClient, learner: dict[str, Any]) -> None:
        self.seconds: list[float] = []
        self.peak_mb = 0.0
        self._http, self._learner = http, learner
        self._calls: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def at_work(self, controller: ControllerProcess) -> AsyncIterator[None]:
        """Ask for as long as this lasts; each call must be answered well."""
        pacing = [
            asyncio.create_task(self._call_on(self._heartbeat, HEARTBEAT_EVERY_S, controller)),
            asyncio.create_task(self._call_on(self._status, STATUS_EVERY_S, controller)),
        ]
        try:
            yield
        finally:
            for one in pacing:
                one.cancel()
            await asyncio.gather(*self._calls)

    async def _call_on(self, call: Call, every_s: float, controller: ControllerProcess) -> None:
        while True:
            self._calls.add(asyncio.create_task(self._timed(call)))
            self.peak_mb = max(self.peak_mb, resident_mb(controller))
            await asyncio.sleep(every_s)

    async def _timed(self, call: Call) -> None:
        began = time.monotonic()
        answer = await call()
        self.seconds.append(time.monotonic() - began)
        assert answer.status_code in (200, 204), answer.text

    async def _status(self) -> httpx.Response:
        return await self._http.get("/v1/federation")

    async def _heartbeat(self) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._learner['token']}"}
        return await self._http.post(f"/v1/learners/{self._learner['id']}/heartbeat", json={}, headers=headers)

    def slowest_of_a_hundred(self) -> float:
        """The 99th percentile."""
        return sorted(self.seconds)[int(0.99 * len(self.seconds))]


def resident_mb(controller: ControllerProcess) -> float:
    """Memory of the controller that is up."""
    return memory_kib(controller._child.pid).get("VmRSS", 0) * 1024 / 1e6


@pytest.mark.timeout(300)
@pytest.mark.parametrize("event", EVENTS)
async def test_all_come_back_at_once(tmp_path: Path, event: str) -> None:
    """All in within a minute; control calls answered within a second meanwhile; memory bounded; a round with all of
    them counts each once."""
    limits = httpx.Limits(max_connections=None)
    async with (
        controller_in(tmp_path) as controller,
        httpx.AsyncClient(base_url=controller.url, trust_env=False, timeout=60, limits=limits) as http,
        Client(controller.url) as driver,
    ):
        fresh_mb = resident_mb(controller)
        learner = (await http.post("/v1/learners", json={"name": "probe", "kinds": ["evaluate"]})).json()
        probe = Probe(http, learner)
        async with crowd(controller) as learners:
            before_mb = resident_mb(controller)
            if event == EVENTS[2]:
                await start_round(driver)
                await learners.until("tasks", LEARNERS)
            began = time.monotonic()
            if event != EVENTS[0]:
                await controller.kill()
                assert await controller.start(), controller.tail()
            down_s = time.monotonic() - began
            async with probe.at_work(controller):
                for _ in range(CUTS if event == EVENTS[0] else 0):
                    began = time.monotonic()
                    await learners.ask("drop")
                    await learners.until("in", LEARNERS)
                if event == EVENTS[2]:
                    await learners.ask("work")
                back = await learners.until("in", LEARNERS)
                if event != EVENTS[2]:
                    await start_round(driver)
                await learners.until("tasks", LEARNERS)
                await learners.ask("work")
                await learners.until("accepted", LEARNERS)
            all_in_s = back["last_in_at"] - began
            await finished(driver)
        grown_mb = probe.peak_mb - (before_mb if event == EVENTS[0] else fresh_mb)
        slow_s = probe.slowest_of_a_hundred()
        print(
            f"\n{NAMES[event]}: all in after {all_in_s:.2f} s (down for {down_s:.2f} s), {len(probe.seconds)}"
            f" control calls, p99 {1000 * slow_s:.0f} ms, slowest {1000 * max(probe.seconds):.0f} ms,"
            f" memory {fresh_mb:.0f} MB fresh, {before_mb:.0f} MB with all, {probe.peak_mb:.0f} MB at most"
        )
        assert all_in_s < ALL_IN_S
        assert slow_s < CONTROL_S
        assert grown_mb < MEMORY_MB
        record(NAMES[event], LEARNERS, LEARNERS, 0, 0, all_in_s)


async def start_round(driver: Client) -> None:
    """A run of one round, in which everybody of the crowd trains."""
    digest = await driver.put_model(encode(name_tensors([np.zeros(SIZE, np.float32)])))
    await driver.start_run(
        {
            "min_learners": LEARNERS,
            "initial_model": digest,
            "schedule": {"min_updates": LEARNERS, "round_deadline_s": 120},
            "evaluation": {"every": 0},
            "termination": {"federation_rounds": 1},
        }
    )


async def finished(driver: Client) -> None:
    """The run is completed, and its model is the mean of the updates of all, each counted once."""

    async def over() -> bool:
        return (await driver.run()).state in TERMINAL

    await until(over, 60)
    results = await driver.results()
    assert results.run.state == "completed", results.run.reason
    assert [len(set(one.completed)) for one in results.rounds] == [LEARNERS]
    assert decode(await driver.run_model()).arrays[0].tolist() == [(LEARNERS - 1) / 2] * SIZE
