"""kill -9 of the controller at any moment: the run goes on where it was, and ends with the very same model."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from services import messages as m
from services.errors import UnknownRun
from services.rest import Client
from tests.faults.federation import IN_FULL, Story, retry_quickly
from tests.faults.judging import Verdict, broken_run, calm_stories, conclude, side_by_side
from tests.faults.processes import ControllerProcess

KILLS, KILLS_A_RUN = (100 if IN_FULL else 4), 5
STARTING_S, STARTING_SHARE = 0.8, 0.2  # a start takes about so long; so many deaths are followed by one in a start
AGAIN_S = 0.05  # until learners are back


class Kills:
    """Kills at moments drawn from all the time that the controller is up, as long as the run goes on; some of the
    restarts are killed too. `in_run` counts the kills of a controller that was up, with a run that had not ended."""

    def __init__(self, seed: int, length_s: float) -> None:
        self.in_run = 0
        self._draw = random.Random(seed)
        longest = length_s + AGAIN_S * KILLS_A_RUN
        self._moments = sorted(self._draw.uniform(0, longest) for _ in range(KILLS_A_RUN))

    async def __call__(self, controller: ControllerProcess) -> None:
        """See the class."""
        up = 0.0
        async with Client(controller.url) as operator:
            for moment in self._moments:
                await asyncio.sleep(moment - up)
                up = moment
                state = await state_of_run(operator)
                if state in m.TERMINAL:
                    return
                await controller.kill()
                self.in_run += state is not None
                if self._draw.random() < STARTING_SHARE:
                    controller.launch()
                    await asyncio.sleep(self._draw.uniform(0, STARTING_S))
                    await controller.kill()
                assert await controller.start(), controller.tail()


async def state_of_run(operator: Client) -> str | None:
    """The state of the newest run; None while there is none."""
    try:
        return (await operator.run("latest")).state
    except UnknownRun:
        return None


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rounds, killed several times at random: the same models bit by bit, no update lost, none counted twice, none
    trained again. What is recorded are the kills during a run."""
    retry_quickly(monkeypatch)
    seeds, verdicts, in_run = itertools.count(1), list[Verdict](), 0
    while in_run < KILLS and all(one.survived for one in verdicts):
        some = list(itertools.islice(seeds, math.ceil((KILLS - in_run) / KILLS_A_RUN)))
        calm = await calm_stories(tmp_path, some)

        async def run(seed: int, calm: Mapping[int, Story] = calm) -> Verdict:
            breaking = Kills(seed, calm[seed].seconds)
            verdict = await broken_run(tmp_path, seed, calm[seed], breaking, patience_s=30)
            verdict.faults = breaking.in_run
            return verdict

        verdicts += await side_by_side(some, run)
        in_run = sum(one.faults for one in verdicts)
    conclude("controller killed at any moment", verdicts)
    assert in_run >= KILLS
