"""Two controllers on one folder: the second one ends with a clear error, and the first does not notice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import Process, Served, free_port, serve
from tests.faults.figures import record

Start = Callable[..., Process]
TWICE = 3


def second(start: Start, served: Served, folder: Path) -> Process:
    """Another controller on the folder of one that runs."""
    where = ("--port", str(free_port()), "--data-dir", str(folder / "controller"))
    return start("second", "-m", "controller_api", *where)


def health(served: Served) -> int:
    """The status of its health."""
    return httpx.get(f"{served.url}/healthz", timeout=10).status_code


async def test_the_second_controller_ends_with_a_clear_error(start: Start, tmp_path: Path) -> None:
    """It names the folder, the process that has it and what to do, touches nothing, and exits with 2."""
    served = await asyncio.to_thread(serve, start, tmp_path)
    half = tmp_path / "controller" / "models" / "0123.part"
    half.write_bytes(b"an upload that the first one is writing")
    for _ in range(TWICE):
        other = second(start, served, tmp_path)
        assert other.wait(30) == 2
        assert (
            f"another controller (pid {served.process.child.pid}) works on the folder {tmp_path / 'controller'}:"
            " stop it, or give this one another --data-dir"
        ) in " ".join(other.tail().split())
        assert "Traceback" not in other.tail()
    assert half.exists()
    assert health(served) == 200
    record("two controllers on one folder", TWICE, TWICE, 0, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_folder_of_a_dead_controller_is_free(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """A new one starts on it at once, with nothing to remove by hand."""
    first = await asyncio.to_thread(serve, start, tmp_path)
    first.process.kill(number)
    await asyncio.to_thread(first.process.wait, 30)
    again = await asyncio.to_thread(serve, start, tmp_path)
    assert health(again) == 200


async def test_a_frozen_controller_keeps_its_folder(start: Start, tmp_path: Path) -> None:
    """It may wake up: a second one is refused meanwhile, and the first goes on when it is let."""
    first = await asyncio.to_thread(serve, start, tmp_path)
    first.process.kill(signal.SIGSTOP)
    other = second(start, first, tmp_path)
    assert other.wait(30) == 2
    first.process.kill(signal.SIGCONT)
    assert health(first) == 200


async def test_models_in_memory_need_no_folder(start: Start, tmp_path: Path) -> None:
    """A controller that keeps nothing takes no folder from another one."""
    first = await asyncio.to_thread(serve, start, tmp_path)
    other = await asyncio.to_thread(serve, start, tmp_path, "--model-store", "InMemory")
    assert (health(first), health(other)) == (200, 200)
