"""A thousand learners lose their connections at once and come back at once: all are in soon, and the rest is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driver_cli.bench.counters import cpu_s, memory_kib
from driver_cli.bench.idle import raise_file_limit
from services import messages as m
from services.rest import Client
from services.weights.wire import decode, encode, name_tensors
from tests.conftest import until
from tests.faults.crowd import HOST, SIZE
from tests.faults.federation import IN_FULL
from tests.faults.figures import record
from tests.faults.judging import controller_in
from tests.faults.processes import ControllerProcess

LEARNERS = 1000 if IN_FULL else 100
ALL_IN_S = 60.0
CONTROL_S = 1.0  # the slowest of a hundred control calls; or, on a slower machine, as often as long as one call of
CONTROL_TURNS = 3  # each learner keeps the controller busy: a new connection is accepted, read and answered in turns
SAMPLES = 200  # control calls at least: the two slowest of so few are left out
MEMORY_MB = 65.0  # more than with all of them in
CUTS, LEFT_MB = 20, 15.0  # one cut after the other: what each of the second half leaves in memory would add up
RETURNS = 3  # of a controller that was killed: they come back, are given tasks, and send what they have
HEARTBEAT_EVERY_S, STATUS_EVERY_S = 0.005, 0.5  # of the control calls; a status names every learner
Call = Callable[[], Awaitable[int]]
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

    async def until(self, name: str) -> None:
        """Wait until all have a task, or were accepted."""

        async def there() -> bool:
            return bool((await self.ask())[name] == LEARNERS)

        await until(there, ALL_IN_S)

    async def all_in(self, since: float) -> float:
        """Wait until every one has come in since a moment, and is in: how long after it the last one came."""

        async def there() -> list[float]:
            state = await self.ask()
            first, last = state["in_at"]
            return [last - since] if state["in"] == LEARNERS and first > since else []

        found: list[float] = await until(there, ALL_IN_S)
        return found[0]


@asynccontextmanager
async def crowd(controller: ControllerProcess) -> AsyncIterator[Told]:
    """All of them enrolled and polling."""
    raise_file_limit(LEARNERS + 200)
    command = [sys.executable, "-m", "tests.faults.crowd", str(controller.port), str(LEARNERS)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT)
    told = Told(process)
    try:
        await told.all_in(0.0)
        yield told
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Probe:
    """Control calls at a steady pace, none of which waits for another: how long each took, and the most memory."""

    def __init__(self, learner: m.Learner) -> None:
        self.seconds: list[float] = []
        self.peak_mb = 0.0
        self._learner = learner
        self._port: int
        self._calls: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def at_work(self, controller: ControllerProcess) -> AsyncIterator[None]:
        """Ask for as long as this lasts, and until there are samples enough; each call must be answered well."""
        self._port = controller.port
        pacing = [
            asyncio.create_task(self._call_on(self._heartbeat, HEARTBEAT_EVERY_S, controller)),
            asyncio.create_task(self._call_on(self._status, STATUS_EVERY_S, controller)),
        ]
        try:
            yield
            await until(self._enough)
        finally:
            for one in pacing:
                one.cancel()
            await asyncio.gather(*self._calls)

    async def _enough(self) -> bool:
        return len(self.seconds) >= SAMPLES

    async def _call_on(self, call: Call, every_s: float, controller: ControllerProcess) -> None:
        while True:
            self._calls.add(asyncio.create_task(self._timed(call)))
            self.peak_mb = max(self.peak_mb, resident_mb(controller))
            await asyncio.sleep(every_s)

    async def _timed(self, call: Call) -> None:
        began = time.monotonic()
        status = await call()
        self.seconds.append(time.monotonic() - began)
        assert status in (200, 204), status

    async def _status(self) -> int:
        return await self._ask("GET", "/v1/federation")

    async def _heartbeat(self) -> int:
        path = f"/v1/learners/{self._learner.id}/heartbeat"
        return await self._ask("POST", path, f"Authorization: Bearer {self._learner.token}\r\n")

    async def _ask(self, method: str, path: str, credential: str = "") -> int:
        """The status of the answer, on a connection of its own. A client's pool of hundreds takes longer than the
        controller."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{credential}"
            writer.write(f"{head}Content-Length: 0\r\n\r\n".encode())
            return int((await reader.read())[9:12])
        finally:
            writer.close()

    def slowest_of_a_hundred(self) -> float:
        """The 99th percentile."""
        return sorted(self.seconds)[int(0.99 * len(self.seconds))]


def resident_mb(controller: ControllerProcess) -> float:
    """Memory of the controller that is up."""
    return memory_kib(controller._child.pid).get("VmRSS", 0) * 1024 / 1e6


def busy(controller: ControllerProcess) -> float:
    """Seconds of a processor that the controller that is up has taken."""
    found = cpu_s(controller._child.pid)
    assert found is not None
    return found


def descriptors(controller: ControllerProcess) -> int:
    """Files and sockets of the controller that is up."""
    return len(os.listdir(f"/proc/{controller._child.pid}/fd"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("event", EVENTS)
async def test_all_come_back_at_once(tmp_path: Path, event: str) -> None:
    """All in within a minute; control calls answered within a second meanwhile, or when each learner has had its turn
    before each of theirs; memory bounded; a round with all of them counts each once."""
    async with controller_in(tmp_path) as controller, Client(controller.url) as driver:
        probe = Probe(await driver.join(m.JoinRequest(name="probe", kinds=["evaluate"])))
        async with crowd(controller) as learners:
            if event == EVENTS[2]:
                await start_round(driver)
                await learners.until("tasks")
            open_before, before_mb = descriptors(controller), resident_mb(controller)
            began = time.monotonic()
            if event != EVENTS[0]:
                await controller.kill()
                assert await controller.start(), controller.tail()
            down_s = time.monotonic() - began
            busy_s = busy(controller)
            async with probe.at_work(controller):
                if event == EVENTS[0]:
                    longest_s = await cut_again_and_again(learners, controller)
                else:
                    if event == EVENTS[2]:
                        await learners.ask("work")
                    longest_s = await learners.all_in(began)
                if event != EVENTS[2]:
                    await start_round(driver)
                await learners.until("tasks")
                await learners.ask("work")
                await learners.until("accepted")
            busy_s = (busy(controller) - busy_s) / (CUTS if event == EVENTS[0] else RETURNS)
            await finished(driver)

            async def all_closed() -> bool:
                return descriptors(controller) <= open_before

            await until(all_closed)
        slow_s = probe.slowest_of_a_hundred()
        print(
            f"\n{NAMES[event]}: all in after {longest_s:.2f} s (down for {down_s:.2f} s), {len(probe.seconds)}"
            f" control calls, p99 {1000 * slow_s:.0f} ms, slowest {1000 * max(probe.seconds):.0f} ms,"
            f" busy with one of each for {busy_s:.2f} s,"
            f" memory {before_mb:.0f} MB with all, {probe.peak_mb:.0f} MB at most, {open_before} descriptors"
        )
        assert longest_s < ALL_IN_S
        if IN_FULL:  # a machine that runs other tests beside this one says nothing of it
            assert slow_s < max(CONTROL_S, CONTROL_TURNS * busy_s)
        assert probe.peak_mb - before_mb < MEMORY_MB
        record(NAMES[event], LEARNERS, LEARNERS, 0, 0, longest_s)


async def cut_again_and_again(learners: Told, controller: ControllerProcess) -> float:
    """Cut all connections a number of times: the longest that it took all to come back. When the memory that this takes
    is there, it grows no more."""
    waits, resident = [], []
    for _ in range(CUTS):
        began = time.monotonic()
        await learners.ask("drop")
        waits.append(await learners.all_in(began))
        resident.append(resident_mb(controller))
    assert resident[-1] - resident[CUTS // 2 - 1] < LEFT_MB
    return max(waits)


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
        return (await driver.run()).state in m.TERMINAL

    await until(over, 60)
    results = await driver.results()
    assert results.run.state == "completed", results.run.reason
    assert [len(set(one.completed)) for one in results.rounds] == [LEARNERS]
    assert decode(await driver.run_model()).arrays[0].tolist() == [(LEARNERS - 1) / 2] * SIZE
