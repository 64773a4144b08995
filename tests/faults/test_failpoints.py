"""kill -9 of the controller at each step that matters, and there again in some of the restarts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.process.failpoints import POINTS
from tests.faults.federation import EXTRAS, IN_FULL, LEARNERS, ROUNDS, Breaking, retry_quickly
from tests.faults.judging import Verdict, broken_run, calm_stories, conclude, side_by_side
from tests.faults.processes import ControllerProcess

UPDATES = LEARNERS * ROUNDS
REACHED = {  # how often, at least, in a run; scores are uploads too, and each task is offered to one learner
    "upload-begun": 2 * UPDATES,
    "upload-whole": 2 * UPDATES,
    "update-stored": UPDATES,
    "update-counted": UPDATES,
    "update-kept": UPDATES,
    "aggregation-begun": ROUNDS,
    "model-stored": ROUNDS,
    "round-changed": ROUNDS,
    "round-kept": ROUNDS,
    "tasks-offered": 2 * UPDATES,
    "run-started": 1,
    "learner-joined": LEARNERS,
    "learner-kept": LEARNERS,
}


def seeds_of(name: str) -> Sequence[int]:
    """Twenty, or in a short run one, so that the failpoints together try everything that a run may have."""
    return range(20) if IN_FULL else [list(REACHED).index(name) % len(EXTRAS)]


def deaths(failpoints: Sequence[str]) -> Breaking:
    """Start the controller again after each death, with the next failpoint, at last with none."""

    async def breaking(controller: ControllerProcess) -> None:
        for following in (*failpoints, None):
            await controller.died()
            assert await controller.start(following) or following, controller.tail()

    return breaking


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", REACHED)
async def test_killed_at(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on by itself and ends with the same models bit by bit; no update is lost, counted twice or trained
    again."""
    retry_quickly(monkeypatch)
    calm = await calm_stories(tmp_path, seeds_of(name))

    async def run(seed: int) -> Verdict:
        draw = random.Random(f"{name} {seed}")
        first = f"{name}:{draw.randint(1, REACHED[name])}"
        again = [f"{name}:1"] if draw.random() < 0.25 else []
        breaking = deaths(again)
        verdict = await broken_run(tmp_path, seed, calm[seed], breaking, failpoint=first, patience_s=2.0)
        if not verdict.faults:
            verdict.problems.append(f"{first} was never reached")
        return verdict

    conclude(f"controller killed at `{name}`", await side_by_side(seeds_of(name), run))


def test_every_failpoint_is_tried() -> None:
    """The failpoints of the code are those of this file."""
    assert set(REACHED) == set(POINTS)
