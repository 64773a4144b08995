"""Rounds that overflow: the model and the optimizer's state stay, the run goes on, and ends after three in a row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services import ModelStoreConfig
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import Member, begin, document, settings, weights

# v begins at tau², a little below the largest float32: one difference of 4e17 takes it past that, one of 1 does not.
ON_THE_EDGE: dict[str, Any] = {
    "server_optimizer": "FedAdagrad",
    "optimizer": {"tau": 1.84464e19, "learning_rate": 1e19},
}
FAR = 4e17
REASON = "the server optimizer's moment 'v' overflows"


async def one_round(controller: InProcess, members: Sequence[Member], value: float) -> None:
    """Every member sends this as its weights; the round closes."""
    before = len((await controller.http.get("/v1/runs/latest/rounds")).json())
    for one in members:
        answer = await one.put(await one.task(), document(*weights(value)))
        assert answer.status_code == 201, answer.text

    async def closed() -> bool:
        rounds = (await controller.http.get("/v1/runs/latest/rounds")).json()
        return bool(rounds[before - 1]["state"] == "closed")

    await until(closed)


async def played(folder: Path, *values: float) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """A run with a round of each value; its end, its rounds, its model."""
    store = ModelStoreConfig("OnDisk", 1)
    async with in_process(settings(data_dir=folder, model_store="OnDisk"), store=store) as controller:
        http, config = controller.http, {**ON_THE_EDGE, "termination": {"federation_rounds": 3}}
        members = await begin(http, "anna", "ben", evaluation={"every": 0}, **config)
        for value in values:
            await one_round(controller, members, value)
        run = (await http.get("/v1/runs/latest")).json()
        rounds = (await http.get("/v1/runs/latest/rounds")).json()
        return run, rounds, (await http.get("/v1/runs/latest/model")).content


async def test_an_overflow_in_the_optimizer_s_state_fails_its_round_alone(tmp_path: Path) -> None:
    """The run goes on and ends with the model, bit by bit, of a run in which nobody sent such updates."""
    run, rounds, made = await played(tmp_path / "with", 1.0, FAR, 2.0, FAR, FAR, 3.0)
    assert (run["state"], run["reason"]) == ("completed", "3 rounds are done")
    assert [bool(one["model"]) for one in rounds] == [True, False, True, False, False, True]
    assert all(one["failure"].startswith(REASON) for one in rounds if not one["model"])
    assert rounds[1]["parent"] == rounds[0]["model"] == rounds[2]["parent"]
    _, _, expected = await played(tmp_path / "without", 1.0, 2.0, 3.0)
    assert hashlib.sha256(made).digest() == hashlib.sha256(expected).digest()


async def test_three_in_a_row_end_the_run(controller: InProcess) -> None:
    """With a reason in words; the model of the first round is there."""
    http = controller.http
    config = {**ON_THE_EDGE, "termination": {"federation_rounds": 9}}
    members = await begin(http, "anna", "ben", evaluation={"every": 0}, **config)
    for value in (1.0, FAR, FAR, FAR):
        await one_round(controller, members, value)
    run = (await http.get("/v1/runs/latest")).json()
    begins = "3 rounds in a row made no model (schedule.max_failed_rounds), the last one round 4: "
    assert run["state"] == "failed"
    assert run["reason"].startswith(begins + REASON)
    assert run["model"] == (await http.get("/v1/runs/latest/rounds")).json()[0]["model"]


async def test_a_model_that_is_not_finite_fails_its_round_alone(controller: InProcess) -> None:
    """Momentum with an absurd learning rate: what overflows is the model, in float32."""
    http = controller.http
    config: dict[str, Any] = {"server_optimizer": "FedAvgM", "optimizer": {"momentum": 0.0, "learning_rate": 1e30}}
    config |= {"termination": {"federation_rounds": 2}, "evaluation": {"every": 0}}
    members = await begin(http, "anna", "ben", **config)
    for value in (0.0, 1e10, 0.0):
        await one_round(controller, members, value)
    run = (await http.get("/v1/runs/latest")).json()
    rounds = (await http.get("/v1/runs/latest/rounds")).json()
    assert (run["state"], run["reason"]) == ("completed", "2 rounds are done")
    assert rounds[1]["failure"] == "the aggregate is not finite: tensor '0' holds NaN or infinity"


async def test_updates_that_count_nothing_fail_their_round_alone(controller: InProcess) -> None:
    """Every factor is 0: there is nothing to average, this time."""
    http = controller.http
    members = await begin(http, "anna", "ben", evaluation={"every": 0})
    for examples in (0, 10, 10):
        for one in members:
            assert (await one.put(await one.task(), document(*weights(1.0), examples=examples))).status_code == 201

    async def ended() -> bool:
        return bool((await http.get("/v1/runs/latest")).json()["state"] == "completed")

    await until(ended)
    rounds = (await http.get("/v1/runs/latest/rounds")).json()
    assert [one["failure"] for one in rounds] == [
        "no update has a scaling factor above 0: there is nothing to average",
        None,
        None,
    ]
