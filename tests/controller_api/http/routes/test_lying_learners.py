"""What one learner can do to a run by what it says of itself, or by updates that are none: little, and it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from controller_api.settings import Settings
from services import ModelStoreConfig
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import (
    OPERATOR,
    TOKENS,
    Member,
    arrays_of,
    bearer,
    begin,
    document,
    problem,
    settings,
    weights,
)

SPOILT = document(*weights(float("nan")))
ONE_ROUND: dict[str, Any] = {"evaluation": {"every": 0}, "termination": {"federation_rounds": 1}}
NOT_EVALUATED: dict[str, Any] = {"evaluation": {"every": 0}, "termination": {"federation_rounds": 9}}
REASON = "its updates were refused in 3 rounds in a row, the last one: tensor '0' holds NaN or infinity"


async def refused_rounds(members: list[Member], rounds: int) -> None:
    """Rounds in which the last member sends what is refused until it says that it has failed."""
    *honest, hostile = members
    for _ in range(rounds):
        task = await hostile.task()
        answers = [await hostile.put(task, SPOILT) for _ in range(5)]
        assert {answer.status_code for answer in answers} <= {422, 410}
        problem(answers[0], 422, "non-finite-update")
        await hostile.call("POST", f"/v1/tasks/{task['id']}/failure", json={"error": "non-finite-update"})
        for one in honest:
            await one.work()


@pytest.mark.parametrize("examples", [2**53, 2.0**53])
async def test_one_count_of_many_examples_does_not_make_the_model(controller: InProcess, examples: float) -> None:
    """Four honest updates of 1 by 10 examples each and one of 1,000,001 by 2^53: the model is theirs but for its share,
    10,000 of 10,040, and with the cap of 2 it is 20 of 60. The round names the learner and both numbers."""

    async def ended() -> bool:
        return bool((await controller.http.get("/v1/runs/latest")).json()["state"] == "completed")

    for cap, share in ((1000, 10_000 / 10_040), (2, 20 / 60)):
        names = [f"{name}-{cap}" for name in ("anna", "ben", "cleo", "dan", "mallory")]
        config: dict[str, Any] = {"schedule": {"factor_cap": cap}, **ONE_ROUND}
        members = await begin(controller.http, *names, **config)
        for one in members:
            lies = one.name == f"mallory-{cap}"
            body = document(*weights(1_000_001.0 if lies else 1.0), examples=examples if lies else 10)
            assert (await one.put(await one.task(), body)).status_code == 201
        await until(ended)
        body = (await controller.http.get("/v1/runs/latest/model")).content
        assert arrays_of(body)[1] == pytest.approx([1 + 1_000_000 * share] * 3, rel=1e-6)
        (shown,) = (await controller.http.get("/v1/runs/latest/rounds")).json()
        assert shown["capped"] == {f"mallory-{cap}": {"factor": 2**53, "counts": 10 * cap}}
        for one in members:
            assert (await one.call("DELETE", one.path)).status_code == 204


async def test_a_learner_whose_updates_are_refused_is_put_aside(tmp_path: Path) -> None:
    """After three rounds it gets no tasks, the run goes on with the others, also after a restart of the controller; an
    operator lets it back."""
    given = Settings(data_dir=tmp_path, log_level="error")
    async with in_process(given, store=ModelStoreConfig("OnDisk", 1)) as controller:
        members = await begin(controller.http, "anna", "ben", "mallory", **NOT_EVALUATED)
        await refused_rounds(members, 3)
        assert (await members[-1].call("GET", f"{members[-1].path}/task")).status_code == 204
    async with in_process(given, store=ModelStoreConfig("OnDisk", 1)) as controller:
        anna, ben, mallory = [Member(controller.http, one.id, one.name, one.token) for one in members]
        shown = (await mallory.call("GET", mallory.path)).json()
        assert (shown["state"], shown["health"], shown["health_reason"]) == ("active", "aside", REASON)
        for one in (anna, ben):
            await one.work()
        assert (await mallory.call("GET", f"{mallory.path}/task")).status_code == 204
        answer = await controller.http.post(f"{mallory.path}/readmit")
        assert (answer.status_code, answer.json()["health"], answer.json()["health_reason"]) == (200, "ok", None)
        for one in (anna, ben):
            await one.work()
        assert (await mallory.task())["kind"] == "train"


async def test_its_own_restart_lets_a_learner_back(controller: InProcess) -> None:
    """It reports back under its token."""
    members = await begin(controller.http, "anna", "ben", "mallory", **NOT_EVALUATED)
    await refused_rounds(members, 3)
    mallory = members[-1]
    assert (await mallory.call("GET", mallory.path)).json()["health"] == "aside"
    assert (await mallory.call("POST", "/v1/learners", json={"name": "mallory"})).json()["health"] == "ok"


async def test_the_task_of_a_learner_that_is_put_aside_is_void(controller: InProcess) -> None:
    """Its heartbeat and its next result are told why, and the round does not wait for it."""
    members = await begin(controller.http, "anna", "ben", "mallory", **NOT_EVALUATED)
    await refused_rounds(members, 2)
    mallory = members[-1]
    task = await mallory.task()
    problem(await mallory.put(task, SPOILT), 422, "non-finite-update")
    answers = [await mallory.put(task, SPOILT)]
    answers.append(await mallory.call("POST", f"{mallory.path}/heartbeat", json={"task_id": task["id"]}))
    for answer in answers:
        assert REASON in problem(answer, 410, "task-void")["detail"]
    for one in members[:2]:
        await one.work()
    shown = (await controller.http.get("/v1/runs/latest/rounds")).json()
    assert shown[2]["failed"] == {"mallory": f"the learner is put aside: {REASON}"}


async def test_scores_that_are_refused_put_nobody_aside(controller: InProcess) -> None:
    """Updates are what is counted."""
    members = await begin(controller.http, "anna", "ben", termination={"federation_rounds": 9})
    for _ in range(4):
        for one in members:
            await one.work()
        task = await members[1].task()
        problem(await members[1].put(task, b'{"metrics": 3}', "application/json"), 422, "invalid-request")
        for one in members:
            await one.work()
    assert (await members[1].call("GET", members[1].path)).json()["health"] == "ok"


async def test_only_an_operator_lets_learners_back() -> None:
    """403 under the learner's own token, 404 for nobody."""
    async with in_process(settings(**TOKENS)) as controller:
        (anna, _) = await begin(controller.http, "anna", "ben", operator=OPERATOR)
        problem(await anna.call("POST", f"{anna.path}/readmit"), 403, "forbidden")
        operator = bearer(OPERATOR)
        problem(await controller.http.post("/v1/learners/nobody/readmit", headers=operator), 404, "unknown-learner")
        assert (await controller.http.post(f"{anna.path}/readmit", headers=operator)).status_code == 200


async def test_refusals_in_parts_count_too(controller: InProcess) -> None:
    """An update that is sent by PATCH and is none."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    headers = {"Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?1"}
    body = msgpack.packb({"tensors": []})
    answer = await anna.call("PATCH", f"/v1/tasks/{task['id']}/result", content=body, headers=headers)
    problem(answer, 422, "shape-mismatch")
    assert (await anna.call("GET", anna.path)).json()["health"] == "failing"
