"""Inputs of tasks and extra tensors of updates, spoken by hand: who gets them, what is refused, what comes of them."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urljoin

import msgpack
import numpy as np
import pytest

from services.weights import wire
from tests.conftest import InProcess, until
from tests.controller_api.driving import Member, begin, digest_of, document, join, model, problem, tensor, weights

SCAFFOLD: dict[str, Any] = {"algorithm": "SCAFFOLD", "termination": {"federation_rounds": 4}}
SIZES = [6, 3]  # elements of the model's two tensors


def control(value: float) -> list[Any]:
    """A group of the model's form."""
    return [tensor(array, str(i)) for i, array in enumerate(weights(value))]


def update(value: float, change: float) -> bytes:
    """An update whose control changes by a number."""
    return document(*weights(value), extra={"control": control(change)})


async def given(one: Member, task: dict[str, Any]) -> list[float]:
    """The value of each tensor of the control that a task names."""
    reference = task["inputs"]["control"]
    answer = await one.call("GET", urljoin(f"{one.path}/task", reference["url"]))
    assert answer.status_code == 200, answer.text
    assert (digest_of(answer.content), len(answer.content)) == (reference["digest"], reference["size"])
    tensors = [np.frombuffer(each["data"], each["dtype"]) for each in msgpack.unpackb(answer.content)["tensors"]]
    assert [len(each) for each in tensors] == SIZES
    assert all((each == each[0]).all() for each in tensors)
    return [float(each[0]) for each in tensors]


async def round_of(members: list[Member], change: dict[str, float]) -> list[list[float]]:
    """A whole round, its evaluation too; each member's control."""
    tasks = [await one.task() for one in members]
    seen = [await given(one, task) for one, task in zip(members, tasks, strict=True)]
    for one, task in zip(members, tasks, strict=True):
        assert (await one.put(task, update(1.0, change[one.name]))).status_code == 201
    for one in members:
        task = await one.task()
        assert (task["kind"], task["inputs"]) == ("evaluate", {})
        assert (await one.score(task, loss=1.0)).status_code == 201
    return seen


async def test_the_control_follows_the_updates_and_a_later_learner_gets_it(controller: InProcess) -> None:
    """0, then mean(1, 3) = 2; with cleo, who has sent nothing, mean(1 + 4, 3 + 4, 0) = 4, the same for all three."""
    anna, ben = await begin(controller.http, "anna", "ben", **SCAFFOLD)
    assert await round_of([anna, ben], {"anna": 1, "ben": 3}) == [[0, 0]] * 2
    cleo = await join(controller.http, "cleo")  # round 2 has begun
    assert await round_of([anna, ben], {"anna": 4, "ben": 4}) == [[2, 2]] * 2
    assert await round_of([anna, ben, cleo], {"anna": 1, "ben": 3, "cleo": 2}) == [[4, 4]] * 3
    assert await given(cleo, await cleo.task()) == [6, 6]


async def test_what_learners_hold_is_kept_once_for_each(controller: InProcess) -> None:
    """And what the newest round was made of, for whoever verifies it; nothing of the rounds before, nor of who left."""
    store = controller.app.state.runtime.store
    anna, ben = await begin(controller.http, "anna", "ben", **SCAFFOLD)

    def held() -> int:
        keys = store.keys()
        return sum(key.startswith("control-") for key in keys)

    for _ in range(3):
        await round_of([anna, ben], {"anna": 1, "ben": 3})
    assert held() == 4
    assert (await anna.call("DELETE", anna.path)).status_code == 204
    await round_of([ben], {"ben": 1})

    async def tidied() -> bool:
        return held() == 3  # of the last round: what ben held, and anna, whose share went; and what ben holds

    await until(tidied)
    assert await until_over(controller) == "completed"


async def until_over(controller: InProcess) -> str:
    """The state in which the run ends."""

    async def over() -> str:
        run = (await controller.http.get("/v1/runs/latest")).json()
        return str(run["state"]) if run["ended_at"] else ""

    return str(await until(over))


async def test_a_run_without_an_algorithm_has_no_inputs_and_takes_no_extra(controller: InProcess) -> None:
    """What nobody asked for is refused by its name, also when it is empty; the update without it is taken."""
    (anna,) = await begin(controller.http, "anna")
    task = await anna.task()
    assert task["inputs"] == {}
    for extra in (control(1), []):
        told = problem(await anna.put(task, document(*weights(1.0), extra={"control": extra})), 422, "malformed-update")
        assert "holds the extra tensors 'control'" in told["detail"]
    assert (await anna.put(task, document(*weights(1.0)))).status_code == 201


WRONG: dict[str, tuple[Any, str, str]] = {
    "missing": (None, "malformed-update", "misses the extra tensors 'control'"),
    "another name": ({"controls": control(1)}, "malformed-update", "holds the extra tensors 'controls'"),
    "one more": ({"control": control(1), "more": []}, "malformed-update", "holds the extra tensors 'more'"),
    "a tensor less": ({"control": control(1)[:1]}, "shape-mismatch", "extra 'control': expected 2 tensors, got 1"),
    "another shape": (
        {"control": [tensor(np.zeros((3, 2), "<f4")), control(1)[1]]},
        "shape-mismatch",
        "extra 'control': tensor '0': expected shape [2, 3], got [3, 2]",
    ),
    "another dtype": (
        {"control": [control(1)[0], tensor(np.zeros(3), "1")]},
        "shape-mismatch",
        "extra 'control': tensor '1': expected dtype float32, got float64",
    ),
    "not finite": ({"control": control(math.inf)}, "non-finite-update", "tensor '0' holds NaN or infinity"),
}


@pytest.mark.parametrize("laid_out_like_the_model", [True, False])
@pytest.mark.parametrize("why", WRONG)
async def test_extra_tensors_that_are_not_wanted_are_refused(
    controller: InProcess, why: str, laid_out_like_the_model: bool
) -> None:
    """422 that names the group; nothing has changed, and a corrected update is taken."""
    extra, name, says = WRONG[why]
    (anna,) = await begin(controller.http, "anna", **SCAFFOLD)
    task = await anna.task()
    body = document(*weights(1.0), **({} if extra is None else {"extra": extra}))
    if laid_out_like_the_model:
        read = wire.decode(body)
        body = b"".join(wire.encode(read.tensors, read.metrics, read.metadata, read.extra))
    told = problem(await anna.put(task, body), 422, name)
    assert says in told["detail"]
    assert (await anna.put(task, update(1.0, 1.0))).status_code == 201


async def test_only_who_has_a_task_that_names_it_may_fetch_an_input(controller: InProcess) -> None:
    """Another learner's is forbidden, and one's own once the task is done; the operator may."""
    anna, ben = await begin(controller.http, "anna", "ben", **SCAFFOLD)
    path = f"/v1/models/{(await anna.task())['inputs']['control']['digest']}"
    late = await join(controller.http, "late")
    assert (await anna.call("GET", path)).status_code == 200
    told = problem(await late.call("GET", path), 403, "forbidden")
    assert told["detail"] == "no open task of this learner names that model"
    assert (await anna.put(await anna.task(), update(1.0, 1.0))).status_code == 201
    assert (await anna.call("GET", path)).status_code == 403
    assert (await ben.call("GET", path)).status_code == 200
    assert (await controller.http.get(path)).status_code == 200


async def test_a_control_is_gone_when_no_task_names_it(controller: InProcess) -> None:
    """Each round's replaces that of the round before; a run that has ended needs none."""
    (anna,) = await begin(controller.http, "anna", **SCAFFOLD)
    digests = []
    for _ in range(4):
        digests.append((await anna.task())["inputs"]["control"]["digest"])
        await round_of([anna], {"anna": 10})  # 1 would make it the document of the model
    answer = await controller.http.get("/v1/runs/latest")
    assert answer.json()["state"] == "completed"
    assert len(set(digests)) == 4

    async def gone() -> bool:
        return [(await controller.http.get(f"/v1/models/{one}")).status_code for one in digests] == [404] * 4

    await until(gone)


@pytest.mark.parametrize("down", ["none", "bf16"])
@pytest.mark.parametrize("value", [0.0, 2.0])
async def test_a_model_that_was_put_before_gets_its_control(controller: InProcess, value: float, down: str) -> None:
    """Zeros in its form, also when they are the very document of the model."""
    body = model(*weights(value))
    assert (await controller.http.put(f"/v1/models/{digest_of(body)}", content=body)).status_code == 415
    kind = {"Content-Type": wire.MEDIA_TYPE}
    assert (await controller.http.put(f"/v1/models/{digest_of(body)}", content=body, headers=kind)).status_code == 201
    anna = await join(controller.http, "anna")
    config = {**SCAFFOLD, "initial_model": digest_of(body), "encoding": {"down": down}}
    assert (await controller.http.post("/v1/runs", json=config)).status_code == 201
    for before in (0, 1, 2):
        assert await round_of([anna], {"anna": 1}) == [[before, before]]


async def test_the_operator_is_told_why_an_asynchronous_run_is_refused(controller: InProcess) -> None:
    """422 with the key."""
    config = {**SCAFFOLD, "scheduler": "Asynchronous"}
    told = problem(await controller.http.post("/v1/runs", json=config), 422, "invalid-config")
    assert told["key"] == "algorithm"
    assert "has no rounds" in told["detail"]
