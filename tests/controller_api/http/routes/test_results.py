"""Results: taken once, replayed for ever, refused without a trace."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from tests.conftest import InProcess
from tests.controller_api.driving import (
    MSGPACK,
    TWO_ROUNDS,
    arrays_of,
    begin,
    document,
    join,
    model,
    problem,
    seen,
    weights,
)

ONES = document(*weights(1.0))
# Of two both train, the first one counts.
PARTLY: dict[str, Any] = {"selection": {"participation_ratio": 0.5, "over_selection": 1.0}}


async def test_an_update_gets_a_receipt(controller: InProcess) -> None:
    """201 that says what was taken; the round shows it."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    answer = await anna.put(task, ONES)
    assert answer.status_code == 201
    assert answer.json() == {
        "task_id": task["id"],
        "kind": "train",
        "run_id": task["run_id"],
        "round": 1,
        "learner": "anna",
        "size": len(ONES),
    }
    (one,) = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert (one["completed"], one["bytes"]["up"]) == (["anna"], len(ONES))


async def test_the_same_body_again_gets_the_first_receipt_in_every_phase(controller: InProcess) -> None:
    """200 and the same receipt: in the round, while it is evaluated, after the run's end; nothing changes by it."""
    anna, ben = await begin(controller.http, "anna", "ben", termination={"federation_rounds": 1})
    task = await anna.task()
    receipt = (await anna.put(task, ONES)).json()

    async def replayed() -> None:
        before = await seen(controller.http)
        again = await anna.put(task, ONES)
        assert (again.status_code, again.json()) == (200, receipt)
        assert await seen(controller.http) == before

    await replayed()
    await ben.work()
    score = await anna.task()
    await replayed()
    await anna.score(score, accuracy=0.5)
    await ben.work()
    assert (await controller.http.get("/v1/runs/latest")).json()["state"] == "completed"
    await replayed()
    assert (await anna.score(score, accuracy=0.5)).status_code == 200


async def test_another_body_for_a_task_that_is_done_is_refused(controller: InProcess) -> None:
    """409 `different-body`, whatever it is; the first one counts."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    await anna.put(task, ONES)
    before = await seen(controller.http)
    for other in (document(*weights(2.0)), b"\xc1"):
        problem(await anna.put(task, other), 409, "different-body")
    assert await seen(controller.http) == before


async def test_fifty_uploads_at_once_count_once(controller: InProcess) -> None:
    """One 201 and forty-nine 200 with one receipt; the mean and the bytes are those of one update."""
    anna, ben = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    three = document(*weights(3.0), examples=10)
    answers = await asyncio.gather(*(anna.put(task, three) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.text for answer in answers}) == 1
    await ben.put(await ben.task(), document(*weights(1.0), examples=30))
    new = (await anna.task())["model"]
    assert arrays_of((await anna.call("GET", f"/v1/models/{new['digest']}")).content) == [[1.5] * 6, [1.5] * 3]
    (one,) = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert (one["completed"], one["bytes"]["up"]) == (["anna", "ben"], 2 * len(three))
    counted = (await controller.http.get("/metrics")).text
    assert 'metis_results_total{kind="train"} 2.0' in counted


async def test_the_new_model_is_the_mean_weighted_by_rows(controller: InProcess) -> None:
    """(10·1 + 30·3) / 40 = 2.5 and (10·4 + 30·8) / 40 = 7, in the dtypes and names of the round's model."""
    anna, ben = await begin(controller.http, "anna", "ben")
    for one, first, second, rows in ((anna, 1.0, 4.0, 10), (ben, 3.0, 8.0, 30)):
        body = document(weights(first)[0], weights(second)[1], examples=rows)
        assert (await one.put(await one.task(), body)).status_code == 201
    new = (await anna.task())["model"]
    made = msgpack.unpackb((await anna.call("GET", f"/v1/models/{new['digest']}")).content)
    assert list(made) == ["tensors"]
    assert [(one["name"], one["dtype"], one["shape"]) for one in made["tensors"]] == [
        ("0", "float32", [2, 3]),
        ("1", "float32", [3]),
    ]
    assert arrays_of(msgpack.packb(made)) == [[2.5] * 6, [7.0] * 3]


async def test_of_an_initial_result_only_the_tensors_are_kept(controller: InProcess) -> None:
    """Model 0 is a document of the tensors alone, whatever else the learner sent."""
    anna = await join(controller.http, "anna")
    await controller.http.post("/v1/runs", json=TWO_ROUNDS)
    sent = document(*weights(5.0), metrics={"loss": 1.0})
    assert (await anna.put(await anna.task(), sent)).json()["kind"] == "init"
    answer = await controller.http.get("/v1/runs/current/model")
    assert list(msgpack.unpackb(answer.content)) == ["tensors"]
    assert arrays_of(answer.content) == [[5.0] * 6, [5.0] * 3]
    assert answer.headers["etag"] == f'"{(await controller.http.get("/v1/runs/current")).json()["model"]}"'


async def test_scores_are_combined_by_the_rows_that_they_come_from(controller: InProcess) -> None:
    """(100·0.5 + 300·0.9) / 400 = 0.8; a metric that only one reports counts alone; null is no score."""
    anna, ben = await begin(controller.http, "anna", "ben")
    await anna.work()
    await ben.work()
    told = (
        (anna, {"accuracy": 0.5, "loss": 2.0}, 100),
        (ben, {"accuracy": 0.9, "loss": None}, 300),
    )
    for one, metrics, rows in told:
        body = {"metrics": metrics, "metadata": {"num_evaluation_examples": rows}}
        task = await one.task()
        assert (await one.call("PUT", f"/v1/tasks/{task['id']}/result", json=body)).status_code == 201
    first = (await controller.http.get("/v1/runs/current/rounds")).json()[0]
    assert first["evaluation_metrics"]["combined"] == pytest.approx({"accuracy": 0.8, "loss": 2.0})
    assert first["evaluation_metrics"]["learners"]["ben"] == {"accuracy": 0.9, "loss": None}


async def test_a_result_comes_in_the_media_type_of_its_kind(controller: InProcess) -> None:
    """415 that names the type: weights for a training, JSON for an evaluation."""
    anna, ben = await begin(controller.http, "anna", "ben")
    train = await anna.task()
    assert (
        problem(await anna.put(train, b"{}", "application/json"), 415, "unsupported-media-type")["expected"] == MSGPACK
    )
    for one in (anna, ben):
        await one.work()
    told = problem(await anna.put(await anna.task(), ONES), 415, "unsupported-media-type")
    assert told["expected"] == "application/json"


async def test_an_update_for_a_closed_round_is_too_late(controller: InProcess) -> None:
    """409 `round-closed` with the round that the run is at; afterwards it is as if it had not come."""
    anna, ben = await begin(controller.http, "anna", "ben", **PARTLY)
    late = await ben.task()
    await anna.work()
    for one in (anna, ben):
        assert (await one.work())["kind"] == "evaluate"
    before = await seen(controller.http)
    told = problem(await ben.put(late, ONES), 409, "round-closed")
    assert (told["round"], told["current_round"], told["retryable"]) == (1, 2, False)
    assert await seen(controller.http) == before


async def test_a_result_after_the_end_of_its_run_is_void(controller: InProcess) -> None:
    """410 `task-void` for a task that was never accepted."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    await controller.http.post("/v1/runs/current/stop")
    problem(await anna.put(task, ONES), 410, "task-void")
    assert problem(await anna.put(task, b"\xc1"), 410, "task-void")["id"] == task["id"]  # before it is looked at


async def test_a_task_of_another_learner_or_of_nobody(controller: InProcess) -> None:
    """403 and 404, and the task is still its learner's."""
    anna, ben = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    problem(await ben.put(task, ONES), 403, "forbidden")
    problem(await ben.put({"id": "0000"}, ONES), 404, "unknown-task")
    assert (await anna.put(task, ONES)).status_code == 201


async def test_after_a_refusal_a_good_update_is_taken(controller: InProcess) -> None:
    """422 does not use the task up."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    problem(await anna.put(task, model(*weights())), 422, "invalid-weight")
    assert (await anna.put(task, ONES)).status_code == 201


async def test_a_refused_upload_in_parts_begins_anew(controller: InProcess) -> None:
    """The last part makes it whole, and 422; nothing of it stays, and a good one may begin at 0."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    path = f"/v1/tasks/{task['id']}/result"
    before = await seen(controller.http)
    parts = {"Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?1"}
    problem(await anna.call("PATCH", path, content=ONES + b"x", headers=parts), 422, "malformed-update")
    assert (await anna.call("HEAD", path)).headers["upload-offset"] == "0"
    assert await seen(controller.http) == before
    assert (await anna.call("PATCH", path, content=ONES, headers=parts)).status_code == 201


async def test_scores_have_a_path_of_their_own(controller: InProcess) -> None:
    """The task names it. Where scores went before they are still taken, and both paths know one result."""
    (anna,) = await begin(controller.http, "anna")
    train = await anna.task()
    assert train["result"]["url"] == f"../../tasks/{train['id']}/result"
    bodies: list[dict[str, Any]] = [{"content": ONES, "headers": {"Content-Type": MSGPACK}}, {"json": {"metrics": {}}}]
    for more in bodies:
        answer = await anna.call("PUT", f"/v1/tasks/{train['id']}/scores", **more)
        problem(answer, 415, "unsupported-media-type")
    for places in (("scores", "result"), ("result", "scores")):
        await anna.work()
        task = await anna.task()
        assert task["result"]["url"] == f"../../tasks/{task['id']}/scores"
        first, second = (f"/v1/tasks/{task['id']}/{place}" for place in places)
        taken = await anna.call("PUT", first, json={"metrics": {"accuracy": 0.5}})
        again = await anna.call("PUT", second, json={"metrics": {"accuracy": 0.5}})
        assert (taken.status_code, again.status_code) == (201, 200)
        assert taken.json() == again.json()
        problem(await anna.call("PUT", second, json={"metrics": {}}), 409, "different-body")
