"""The programs of the bench, asked over a connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from driver_cli.bench.channel import start_program
from driver_cli.exits import ChildDied
from driver_cli.local.processes import children


async def test_program_that_dies_is_an_error(tmp_path: Path) -> None:
    """The bench does not wait for the answer of a process that is gone."""
    async with children(tmp_path) as started:
        program = await start_program(started, "floor", "driver_cli.bench.floor", "--params", "10", "--learners", "1")
        program.process.process.kill()
        with pytest.raises(ChildDied):
            await asyncio.wait_for(program.ask("accept"), 30)
