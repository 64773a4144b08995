"""The same seed, learners and data make the same run, bit by bit, whatever the timing."""

from __future__ import annotations

from typing import Any

import pytest

from learner_agent.digits import DigitsLearner
from services import messages as m
from tests.conftest import in_process, until
from tests.learner_agent.agents import Line, agent_of, run_to_end, running

LEARNERS = 6
RUN: dict[str, Any] = {
    "min_learners": LEARNERS,
    "termination": {"federation_rounds": 5},
    "train": {"epochs": 1, "learning_rate": 0.1},
    "train_schedule": {"learning_rate": {"kind": "exponential", "decay": 0.7}},
}


async def run_of(turned: bool = False, **config: Any) -> m.Results:
    """A run of a federation made for it; `turned`: its learners come in another order."""
    async with in_process() as controller:
        indices = list(range(LEARNERS))[:: -1 if turned else 1]
        agents = [
            agent_of(DigitsLearner(index, LEARNERS), Line(controller.app), name=f"learner-{index}") for index in indices
        ]
        async with running(*agents):

            async def here() -> bool:
                return len(await controller.client().learners()) == LEARNERS

            await until(here)
            return await run_to_end(controller, {**RUN, **config})


def models(results: m.Results) -> list[str | None]:
    """Digests of the community models, one a round."""
    assert results.run.state == "completed", results.run.reason
    return [one.model for one in results.rounds]


@pytest.mark.parametrize("selector", ["All", "RoundRobin", "PowerOfChoice"])
async def test_two_runs_with_one_seed_are_identical_and_with_two_are_not(selector: str) -> None:
    """The members, the scores and the digest of every model are the same; another seed draws others."""
    config: dict[str, Any] = {"selector": selector, "selection": {"participation_ratio": 0.5}, "seed": 7}
    first, second, other = (
        await run_of(**config),
        await run_of(**config, turned=True),
        await run_of(**config | {"seed": 8}),
    )
    assert models(first) == models(second)
    assert first.model == second.model == models(first)[-1]
    for one, two in zip(first.rounds, second.rounds, strict=True):
        assert (one.selected, len(one.selected)) == (two.selected, 3)
        assert one.train_metrics == two.train_metrics
        assert one.evaluation_metrics == two.evaluation_metrics
    assert len(set(models(first))) == 5
    assert not set(models(first)) & set(models(other))


async def test_a_schedule_changes_what_is_trained() -> None:
    """Round 1 is the same without it, the later rounds are not."""
    scheduled, plain = models(await run_of()), models(await run_of(train_schedule={}))
    assert scheduled[0] == plain[0]
    assert not set(scheduled[1:]) & set(plain[1:])
