"""Rules that read a number beside the tensors, and server optimizers, over the contract: by hand, to the last digit."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conftest import InProcess
from tests.controller_api.driving import Member, arrays_of, begin, document, problem, weights

NOVA: dict[str, Any] = {"aggregation_rule": "FedNova"}
FAIR: dict[str, Any] = {"aggregation_rule": "QFedAvg", "aggregation": {"q": 1, "learning_rate": 0.5}}


def told(value: float, examples: int, **numbers: Any) -> bytes:
    """An update full of `value` that tells these numbers: `batches`, `loss`."""
    metadata = {"num_training_examples": examples, "num_completed_batches": numbers.get("batches")}
    metrics = {"loss_before_training": numbers["loss"]} if "loss" in numbers else {}
    return document(*weights(value), metadata=metadata, metrics=metrics)


async def next_model(http: httpx.AsyncClient, member: Member) -> list[list[float]]:
    """The newest community model, as its member is asked to evaluate it."""
    task = await member.task()
    assert task["kind"] == "evaluate"
    return arrays_of((await http.get(f"/v1/models/{task['model']['digest']}")).content)


@pytest.mark.parametrize(
    ("config", "good", "bad", "key"),
    [
        (NOVA, {"batches": 0}, [{}, {"batches": -1}, {"batches": "8"}, {"batches": True}], "num_completed_batches"),
        (FAIR, {"loss": 0.0}, [{}, {"loss": -0.5}, {"loss": None}], "loss_before_training"),
    ],
)
async def test_an_update_without_the_number_is_refused(
    controller: InProcess, config: dict[str, Any], good: dict[str, Any], bad: list[dict[str, Any]], key: str
) -> None:
    """422 that names the key; nothing is counted, and the task may still be answered."""
    anna, _ = await begin(controller.http, "anna", "ben", **config)
    task = await anna.task()
    for numbers in bad:
        assert problem(await anna.put(task, told(1.0, 10, **numbers)), 422, "invalid-weight")["key"] == key
    (one,) = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert one["completed"] == []
    assert (await anna.put(task, told(1.0, 10, **good))).status_code == 201


async def test_fednova_makes_steps_equal(controller: InProcess) -> None:
    """From 0, a took 2 steps to 4 with 30 rows, b 8 to 8 with 10: 3.5 * (3/4 * 2 + 1/4 * 1) = 6.125."""
    anna, ben = await begin(controller.http, "anna", "ben", **NOVA)
    await anna.put(await anna.task(), told(4.0, 30, batches=2))
    await ben.put(await ben.task(), told(8.0, 10, batches=8))
    assert await next_model(controller.http, anna) == [[6.125] * 6, [6.125] * 3]


async def test_qfedavg_weighs_by_loss(controller: InProcess) -> None:
    """Nine values go from 0 to 1 at a (loss 4), nowhere at b (loss 2); L = 2, |D_a|^2 = 9 * 4.

    Both of 10 rows: 4 * 2 / ((36 + 2 * 4) + 2 * 2) = 8 / 48, a sixth.
    """
    anna, ben = await begin(controller.http, "anna", "ben", **FAIR)
    await anna.put(await anna.task(), told(1.0, 10, loss=4.0))
    await ben.put(await ben.task(), told(0.0, 10, loss=2.0))
    (first, second) = await next_model(controller.http, anna)
    assert first + second == pytest.approx([1 / 6] * 9, rel=1e-7)


async def test_momentum_goes_on_from_round_to_round(controller: InProcess) -> None:
    """FedAvgM with momentum 1/2: Delta 2 makes 2; the next round stays at 2, and the half of the last step is made."""
    config: dict[str, Any] = {"server_optimizer": "FedAvgM", "optimizer": {"momentum": 0.5}}
    (anna,) = await begin(controller.http, "anna", **config)
    for want in (2.0, 3.0):
        await anna.put(await anna.task(), told(2.0, 10))
        assert await next_model(controller.http, anna) == [[want] * 6, [want] * 3]
        await anna.work()
