"""kill -9 of the controller at any moment: the run goes on where it was, and ends with the very same model."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.federation import IN_FULL, Breaking, retry_quickly
from tests.faults.judging import Verdict, broken_run, calm_story, conclude, side_by_side
from tests.faults.processes import ControllerProcess

KILLS, KILLS_A_RUN = (100 if IN_FULL else 4), 4
STARTING_S, STARTING_SHARE = 0.8, 0.2  # a start takes about so long; so many deaths are followed by one in a start
AGAIN_S = 0.05  # until learners are back


def kills(seed: int, length_s: float) -> Breaking:
    """Kill at moments drawn from all the time that the controller is up; some of the restarts are killed too."""
    draw = random.Random(seed)
    moments = sorted(draw.uniform(0, length_s + AGAIN_S * KILLS_A_RUN) for _ in range(KILLS_A_RUN))

    async def breaking(controller: ControllerProcess) -> None:
        up = 0.0
        for moment in moments:
            await asyncio.sleep(moment - up)
            up = moment
            await controller.kill()
            if draw.random() < STARTING_SHARE:
                controller.launch()
                await asyncio.sleep(draw.uniform(0, STARTING_S))
                await controller.kill()
            assert await controller.start(), controller.tail()

    return breaking


@pytest.mark.timeout(900)
async def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rounds, killed several times at random: the same models bit by bit, no update lost, none counted twice, none
    trained again."""
    retry_quickly(monkeypatch)
    calm = [await calm_story(tmp_path, seed) for seed in range(KILLS // KILLS_A_RUN)]

    async def run(seed: int) -> Verdict:
        breaking = kills(seed, calm[seed].seconds)
        return await broken_run(tmp_path, seed, calm[seed], breaking, patience_s=30)

    verdicts = await side_by_side(range(len(calm)), run)
    assert sum(one.faults for one in verdicts) >= KILLS
    conclude("controller killed at any moment", verdicts)
