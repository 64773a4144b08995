"""A controller process whose disk is full, of its state and of its log: it starts, goes on, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from pathlib import Path

import httpx
import pytest

from tests.conftest import Process, free_port, until
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.federation import IN_FULL, Breaking, retry_quickly
from tests.faults.judging import Verdict, broken_run, calm_story, conclude, controller_in, side_by_side
from tests.faults.processes import ControllerProcess


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


def fills(disk: SmallDisk, seed: int, count: int, length_s: float) -> Breaking:
    """Fill the disk at random moments, for a while each."""
    draw = random.Random(seed)

    async def breaking(controller: ControllerProcess) -> None:
        for _ in range(count):
            await asyncio.sleep(draw.uniform(0, length_s))
            disk.fill()
            until_s = draw.uniform(0.1, 1.0)
            for _ in range(5):
                await asyncio.sleep(until_s / 5)
                disk.top_up()
            disk.free()

    return breaking


@pytest.mark.timeout(900)
async def test_filled_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller process and agents: the disk of its state and of its log is full at random moments. The same models
    bit by bit, no update lost, none counted twice."""
    retry_quickly(monkeypatch)
    seeds = range(20 if IN_FULL else 1)
    calm = {seed: await calm_story(tmp_path, seed) for seed in seeds}
    count = 3 if IN_FULL else 1

    async def run(seed: int) -> Verdict:
        with small_disk(tmp_path / f"seed-{seed}", 32) as disk:
            breaking = fills(disk, seed, count, calm[seed].seconds / count)
            verdict = await broken_run(tmp_path, seed, calm[seed], breaking, patience_s=60)
            verdict.faults = disk.fills
            return verdict

    conclude("disk full at any moment", await side_by_side(seeds, run))
