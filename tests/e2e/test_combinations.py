"""Every rule under every scheduler that it makes sense under: three rounds by real agents through the real app."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from learner_agent import Learner
from services import ModelStoreConfig
from services import messages as m
from services.federation.combinations import allowed
from services.scheduling import SCHEDULERS
from tests.conftest import in_process, until
from tests.learner_agent.agents import Line, agent_of, run_to_end, running

LEARNERS = 7  # as many as Bulyan needs against one
NEEDS: dict[str, dict[str, Any]] = {
    "Krum": {"num_byzantine": 1},
    "MultiKrum": {"num_byzantine": 1},
    "Bulyan": {"num_byzantine": 1},
    "FedStride": {"stride_length": 3},
    "QFedAvg": {"q": 1.0, "learning_rate": 0.5},
    "FedBuff": {"buffer_size": 3},
}
PAIRS = [(scheduler, rule) for scheduler in SCHEDULERS for rule in allowed(scheduler)]


class Nudger(Learner):
    """Moves the model a little towards its own number, and tells all that a rule or scheduler may ask for."""

    names = ("weight", "count")

    def __init__(self, number: int) -> None:
        self.number = number
        self.budgets: list[int | None] = []

    def get_weights(self) -> list[NDArray[Any]]:
        """A matrix and a whole number."""
        return [np.zeros((3, 2), np.float32), np.array(0)]

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """Nothing is kept."""

    def train(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """A step of a tenth of the way."""
        self.budgets.append(config.get("num_local_updates"))
        moved = [weights[0] + np.float32(0.1) * (self.number - weights[0]), weights[1] + 1]
        loss = float(np.square(weights[0] - self.number).mean())
        told = {"num_training_examples": 10 + self.number, "num_completed_batches": 4 + self.number}
        times = {"processing_ms_per_batch": 2.0 + self.number, "processing_ms_per_epoch": 20.0 + self.number}
        return moved, {"loss_before_training": loss}, {**told, **times}

    def evaluate(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> dict[str, float]:
        """How far it is from its number."""
        return {"loss": float(np.square(weights[0] - self.number).mean())}


async def three_rounds(scheduler: str, rule: str) -> tuple[m.Results, list[Nudger]]:
    """The results of a run of seven learners."""
    learners = [Nudger(number) for number in range(1, LEARNERS + 1)]
    config = {
        "scheduler": scheduler,
        "aggregation_rule": rule,
        "aggregation": NEEDS.get(rule, {}),
        "min_learners": LEARNERS,
        "schedule": {"min_updates": LEARNERS, "semi_sync_lambda": 1.0, "round_deadline_s": 60},
        "termination": {"federation_rounds": 3},
    }
    async with in_process(store=ModelStoreConfig("InMemory", 2)) as controller:
        agents = [agent_of(one, Line(controller.app), name=f"learner-{one.number}") for one in learners]
        async with running(*agents):

            async def here() -> bool:
                return len(await controller.client().learners()) == LEARNERS

            await until(here)
            return await run_to_end(controller, config), learners


@pytest.mark.parametrize(("scheduler", "rule"), PAIRS)
async def test_a_rule_runs_under_a_scheduler(scheduler: str, rule: str) -> None:
    """Three community models, all different, each evaluated; the learners come nearer to their numbers."""
    results, learners = await three_rounds(scheduler, rule)
    assert (results.run.state, results.run.reason) == ("completed", "3 rounds are done")
    assert len({one.model for one in results.rounds}) == 3
    assert [one.state for one in results.rounds] == ["closed"] * 3
    first, last = results.rounds[0].evaluation_metrics.combined, results.rounds[-1].evaluation_metrics.combined
    if scheduler != "Asynchronous":  # there the first model may have been evaluated by its committer alone
        assert (first["loss"] or 0) > (last["loss"] or 0) > 0
        assert all(len(one.completed) == LEARNERS for one in results.rounds)
    budgets = [learner.budgets for learner in learners if len(learner.budgets) > 1]
    assert all((budget[1] is not None) == (scheduler == "SemiSynchronous") for budget in budgets)
    assert all(budget[0] is None for budget in budgets)
