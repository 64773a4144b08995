"""Whether a federation came through: its rounds against those of a run that nothing happened to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from services import messages as m
from tests.faults.federation import AT_ONCE, LEARNERS, ROUNDS, Breaking, Kind, Story, kind_of, story_of
from tests.faults.figures import record
from tests.faults.processes import ControllerProcess

T = TypeVar("T")
_calm: dict[Kind, Story] = {}


@dataclass
class Verdict:
    """What is to be said of one run; it came through when there are no problems."""

    seed: int
    problems: list[str] = field(default_factory=list)
    faults: int = 0
    lost: int = 0
    twice: int = 0
    longest_wait_s: float = 0.0

    @property
    def survived(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def tried(self) -> int:
        """How many faults there were; what goes wrong before the first counts as one."""
        return self.faults or int(not self.survived)


@contextlib.asynccontextmanager
async def controller_in(folder: Path, failpoint: str | None = None) -> AsyncIterator[ControllerProcess]:
    """A controller that answers; ended on leaving."""
    controller = ControllerProcess(folder)
    try:
        await controller.start(failpoint)
        yield controller
    finally:
        controller.close()


async def calm_story(folder: Path, seed: int) -> Story:
    """A run that nothing happens to, of the kind that the seed chooses; one for all tests."""
    kind = kind_of(seed)
    if kind not in _calm:
        async with controller_in(folder / f"calm-{kind.size}-{kind.extra}") as controller:
            story = await story_of(controller, seed, kind)
        assert not (wrong := judge(story, story).problems), wrong
        _calm[kind] = story
    return _calm[kind]


async def calm_stories(folder: Path, seeds: Sequence[int]) -> dict[int, Story]:
    """Those of all seeds, a few at a time."""
    one_each = {kind_of(seed): seed for seed in seeds}
    await side_by_side(list(one_each.values()), functools.partial(calm_story, folder))
    return {seed: _calm[kind_of(seed)] for seed in seeds}


def shown(results: m.Results) -> list[tuple[Any, ...]]:
    """What must be the same, round by round: models bit by bit, members, scores, and what transforms did."""
    trained = [one for one in results.tasks if (one.kind, one.state) == ("train", "accepted")]
    transformed = {(one.round, one.learner): one.transforms for one in trained}
    return [
        (
            *(one.round, one.model, sorted(one.completed), one.failed, one.train_metrics, one.evaluation_metrics),
            [transformed.get((one.round, name)) for name in sorted(one.completed)],
        )
        for one in results.rounds
    ]


def judge(story: Story, calm: Story) -> Verdict:
    """Compare a run with one that nothing happened to."""
    results, diary = story.results, story.diary
    counted = Counter(
        (one.learner, one.round) for one in results.tasks if (one.kind, one.state) == ("train", "accepted")
    )
    trained = {(learner, number) for kind, learner, _, number in diary.acknowledged if kind == "train"}
    again = {(learner, number) for kind, learner, _, number in diary.asked_again if kind == "train"}
    lost = {one for one in trained if not counted[one]} | again
    twice = [one for one, times in counted.items() if times > 1]
    retrained = [one for one, times in diary.trained.items() if times > 1]
    checks = {
        f"the run is {results.run.state}: {results.run.reason}": results.run.state == "completed",
        f"{len(results.rounds)} rounds": len(results.rounds) == results.run.round == ROUNDS,
        f"members {[one.completed for one in results.rounds]}": all(
            len(one.completed) == len(set(one.completed)) == LEARNERS for one in results.rounds
        ),
        f"final model {results.model} instead of {calm.results.model}": results.model == calm.results.model,
        "rounds differ from those of the calm run": shown(results) == shown(calm.results),
        f"lost: {sorted(lost)}": not lost,
        f"asked again for what was acknowledged: {diary.asked_again}": not diary.asked_again,
        f"counted twice: {twice}": not twice,
        f"trained again: {retrained}": not retrained,
        f"{len(diary.trained)} trainings": len(diary.trained) == len(counted) == ROUNDS * LEARNERS,
    }
    problems = [problem for problem, well in checks.items() if not well]
    return Verdict(story.seed, problems, story.deaths, len(lost), len(twice), diary.longest_wait_s)


async def broken_run(
    folder: Path, seed: int, calm: Story, breaking: Breaking, *, failpoint: str | None = None, patience_s: float
) -> Verdict:
    """The verdict on a run like the calm one; whatever is raised on the way is a problem of it."""
    async with controller_in(folder / f"seed-{seed}", failpoint) as controller:
        try:
            verdict = judge(await story_of(controller, seed, calm.kind, breaking, patience_s), calm)
        except Exception as error:
            verdict = Verdict(seed, ["".join(traceback.format_exception(error))], controller.deaths)
        if verdict.problems:
            verdict.problems.append(f"the controller said: {controller.tail()}")
        return verdict


async def side_by_side(seeds: Sequence[int], run: Callable[[int], Awaitable[T]]) -> list[T]:
    """What comes of all seeds, a few federations at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(seed: int) -> T:
        async with turns:
            return await run(seed)

    return await asyncio.gather(*(in_turn(seed) for seed in seeds))


def conclude(fault: str, verdicts: Sequence[Verdict]) -> None:
    """Record the figures of a fault, and fail when a run did not come through."""
    record(
        fault,
        tried=sum(one.tried for one in verdicts),
        survived=sum(one.tried for one in verdicts if one.survived),
        lost=sum(one.lost for one in verdicts),
        twice=sum(one.twice for one in verdicts),
        longest_wait_s=max(one.longest_wait_s for one in verdicts),
    )
    wrong = [f"seed {one.seed}: {problem}" for one in verdicts for problem in one.problems]
    assert not wrong, f"{fault}\n" + "\n".join(wrong)
