"""A controller process whose disk is full, of its state and of its log: it starts, goes on, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.messages import TERMINAL
from tests.conftest import Process, free_port, until
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.federation import IN_FULL, Story, retry_quickly
from tests.faults.judging import Verdict, broken_run, calm_story, conclude, controller_in, side_by_side
from tests.faults.processes import ControllerProcess

FILLS, FILLS_A_RUN = (60, 3) if IN_FULL else (1, 1)  # those that are felt
MOST_RUNS = 40 if IN_FULL else 6  # some end before they feel all
REFUSED, TAKEN = r'metis_http_requests_total\{.*status="507"', "metis_results_total"
GOES_ON_S = 60.0  # the longest that a fill is not felt, or that a run is held up by a disk with room


async def test_killed_while_the_disk_is_full(tmp_path: Path) -> None:
    """It starts on the full disk with all that was acknowledged, refuses what it cannot keep, and recovers."""
    with small_disk(tmp_path / "data", 8) as disk:
        async with controller_in(tmp_path) as controller, httpx.AsyncClient(base_url=controller.url) as http:

            async def join(name: str) -> int:
                return (await http.post("/v1/learners", json={"name": name})).status_code

            assert await join("anna") == 201
            disk.fill()
            assert await join("bert") == 507
            await controller.kill()
            disk.top_up()
            assert await controller.start(), controller.tail()
            assert [one["name"] for one in (await http.get("/v1/learners")).json()] == ["anna"]
            assert await join("carl") == 507
            disk.free()

            async def joined() -> bool:
                return await join("dora") == 201

            await until(joined, 10)


async def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """A controller whose log goes to a full disk starts, takes a learner, and ends as ever; the lines are lost."""
    port = free_port()
    where = ("--port", str(port), "--data-dir", str(tmp_path / "data"), "--log-level", "debug")
    process = Process(Path("/dev/full"), "-m", "controller_api", *where, cwd=tmp_path)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            async def joined() -> bool:
                assert process.child.poll() is None, "the controller ended"
                with contextlib.suppress(httpx.TransportError):
                    return (await http.post("/v1/learners", json={"name": "anna"})).status_code == 201
                return False

            await until(joined, 30)
        process.kill(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.end()


class Fills:
    """Fill the disk at random moments of a run, each time until that is felt and a while longer; `felt` counts them.

    It is felt when somebody is refused with 507, or the run says that it is held up. The next fill waits until the run
    has gone on.
    """

    def __init__(self, disk: SmallDisk, seed: int, count: int, length_s: float) -> None:
        self.felt = 0
        self._disk, self._draw = disk, random.Random(seed)
        self._count, self._pause_s = count, length_s / count

    async def __call__(self, controller: ControllerProcess) -> None:
        """See the class; ends with the run, once all is written: an end that is seen while the disk is full is not
        yet kept."""
        await self._fill(controller)
        async with httpx.AsyncClient(base_url=controller.url, trust_env=False, timeout=30) as http:

            async def written() -> bool:
                """To leave is answered when all before it is on the disk; nobody of that name is here."""
                return (await http.delete("/v1/learners/nobody")).status_code == 204

            await until(written, GOES_ON_S)

    async def _fill(self, controller: ControllerProcess) -> None:
        async with httpx.AsyncClient(base_url=controller.url, trust_env=False, timeout=30) as http:
            while self.felt < self._count:
                await asyncio.sleep(self._draw.uniform(0, self._pause_s))
                refused = await counted(http, REFUSED)
                self._disk.fill()
                try:
                    if await until(functools.partial(self._noticed, http, refused), GOES_ON_S) == "over":
                        return
                    self.felt += 1
                    await self._stay_full(self._draw.uniform(0.1, 1.0))
                    taken = await counted(http, TAKEN)
                finally:
                    self._disk.free()
                await until(functools.partial(goes_on, http, taken), GOES_ON_S)

    async def _noticed(self, http: httpx.AsyncClient, refused: float) -> str:
        """What is seen since it is full: `felt`, `over` when the run ended before, or nothing yet."""
        self._disk.top_up()
        status = await glance(http)
        if await counted(http, REFUSED) > refused or "held up" in str(status["waiting_for"]):
            return "felt"
        return "over" if over(status) else ""

    async def _stay_full(self, seconds: float) -> None:
        for _ in range(5):
            await asyncio.sleep(seconds / 5)
            self._disk.top_up()


async def glance(http: httpx.AsyncClient) -> dict[str, Any]:
    """The federation at a glance."""
    status: dict[str, Any] = (await http.get("/v1/federation")).raise_for_status().json()
    return status


def over(status: dict[str, Any]) -> bool:
    """Whether the run has ended."""
    return status["run"] is not None and status["run"]["state"] in TERMINAL


async def counted(http: httpx.AsyncClient, what: str) -> float:
    """What the controller's counters whose lines match have counted together."""
    page = (await http.get("/metrics")).raise_for_status().text
    return sum(float(line.split()[-1]) for line in page.splitlines() if re.match(what, line))


async def goes_on(http: httpx.AsyncClient, taken: float) -> bool:
    """Whether nothing holds up the run and it has taken more results than so many, or has ended."""
    status = await glance(http)
    free = "held up" not in str(status["waiting_for"])
    return over(status) or (free and await counted(http, TAKEN) > taken)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_filled_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller process and agents: the disk of its state and of its log is full at random moments, and the run
    feels each. The same models bit by bit, no update lost, none counted twice."""
    retry_quickly(monkeypatch)

    async def run(seed: int) -> Verdict:
        with small_disk(tmp_path / f"seed-{seed}", 32) as disk:
            fills = Fills(disk, seed, FILLS_A_RUN, calm[seed].seconds)
            verdict = await broken_run(tmp_path, seed, calm[seed], fills, patience_s=60)
            verdict.faults = fills.felt
            return verdict

    calm: dict[int, Story] = {}
    verdicts: list[Verdict] = []
    while (missing := FILLS - sum(one.faults for one in verdicts)) > 0 and len(verdicts) < MOST_RUNS:
        first = len(verdicts)
        seeds = range(first, first + -(-missing // FILLS_A_RUN))
        calm |= {seed: await calm_story(tmp_path, seed) for seed in seeds}
        halves = [side_by_side(seeds[half::2], run) for half in range(2)]  # most of the time they only wait
        verdicts += itertools.chain(*await asyncio.gather(*halves))
    if told := [one for one in verdicts if one.faults or one.problems]:
        conclude("disk full at any moment", told)
    assert missing <= 0, f"{FILLS - missing} of {FILLS} fills were felt"
