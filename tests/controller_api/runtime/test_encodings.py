"""Smaller on the wire, spoken by hand: what is asked for, what is taken, what counts, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

from controller_api.runtime import Runtime
from controller_api.transport import Incoming
from tests.conftest import InProcess
from tests.controller_api.driving import Member, digest_of, document, join, model, problem, seen, tensor

COUNT = 300  # elements of tensor "0", 1,200 bytes: worth coding; tensor "1" is not
ALL = ["none", "bf16", "int8", "topk"]
SMALL = np.array([1, 2, 3], "<f4")
MSGPACK = {"Content-Type": "application/vnd.msgpack"}
FIRST = model(np.zeros(COUNT, "<f4"), SMALL)


async def begin(http: httpx.AsyncClient, *members: tuple[str, list[str]], **encoding: Any) -> list[Member]:
    """Learners (name, encodings) in a run of one round in this encoding, from `FIRST`; each has its train task."""
    there = [await join(http, name, encodings=encodings) for name, encodings in members]
    assert (await http.put(f"/v1/models/{digest_of(FIRST)}", content=FIRST, headers=MSGPACK)).status_code in (200, 201)
    given = {"min_learners": len(there), "termination": {"federation_rounds": 1}, "initial_model": digest_of(FIRST)}
    answer = await http.post("/v1/runs", json={**given, "encoding": encoding})
    assert answer.status_code == 201, answer.text
    return there


def int8(*values: int, scale: Any = 0.5, **changes: Any) -> dict[str, Any]:
    """Tensor "0" as a difference in int8: these numbers, then zeros."""
    data = np.zeros(COUNT, "i1")
    data[: len(values)] = values
    whole = {**tensor(np.zeros(COUNT, "<f4")), "encoding": "int8", "delta": True, "scale": scale}
    return {**whole, "data": data.tobytes(), **changes}


async def fetched(member: Member, task: dict[str, Any]) -> dict[str, Any]:
    """The model of a task, as a plain library reads it; its size is the one that the task named."""
    answer = await member.call("GET", f"/v1/models/{task['model']['digest']}")
    assert (answer.status_code, len(answer.content)) == (200, task["model"]["size"])
    assert digest_of(answer.content) == task["model"]["digest"]
    found: dict[str, Any] = msgpack.unpackb(answer.content)
    return found


async def final(http: httpx.AsyncClient) -> list[Any]:
    """The tensors of the newest model."""
    body = (await http.get("/v1/runs/latest/model")).content
    return [np.frombuffer(one["data"], one["dtype"]) for one in msgpack.unpackb(body)["tensors"]]


async def test_a_coded_update_and_a_plain_one_make_one_model(controller: InProcess) -> None:
    """(0.5 · 4 + 1) / 2 = 1.5 in the first element, (0.5 · -2 + 1) / 2 = 0 in the second, else 0.5; bytes as moved."""
    anna, ben = await begin(controller.http, ("anna", ALL), ("ben", ["none"]), up="int8")
    theirs, his = await anna.task(), await ben.task()
    assert (theirs["encoding"], his["encoding"]) == ({"up": "int8", "topk_ratio": None}, None)
    coded, whole = document(int8(4, -2), tensor(SMALL, "1")), document(np.ones(COUNT, "<f4"), SMALL)
    assert (await anna.put(theirs, coded)).status_code == 201
    assert (await ben.put(his, whole)).json()["size"] == len(whole)
    for one in (anna, ben):
        await one.score(await one.task(), accuracy=0.5)
    weights, small = await final(controller.http)
    assert weights.tolist() == [1.5, 0] + [0.5] * (COUNT - 2)
    assert small.tolist() == [1, 2, 3]
    (done,) = (await controller.http.get("/v1/runs/latest/rounds")).json()
    assert done["bytes"] == {"down": 0, "up": len(coded) + len(whole)}


async def test_a_coded_model_is_a_document_of_its_own(controller: InProcess) -> None:
    """Under its own digest, once for all that read it; the run names the model that it stands for."""
    anna, ben, cleo = await begin(controller.http, ("anna", ALL), ("ben", ALL), ("cleo", ["none"]), down="int8")
    for one in (anna, ben, cleo):
        assert (
            await one.put(await one.task(), document(np.linspace(-127, 127, COUNT).astype("<f4"), SMALL))
        ).is_success
    asked = [await one.task() for one in (anna, ben, cleo)]
    run = (await controller.http.get("/v1/runs/current")).json()
    assert asked[0]["model"] == asked[1]["model"] != asked[2]["model"]
    assert asked[2]["model"]["digest"] == run["model"]
    coarse, fine = await fetched(anna, asked[0]), await fetched(cleo, asked[2])
    assert (coarse["tensors"][0]["encoding"], coarse["tensors"][0]["scale"]) == ("int8", 1.0)
    assert coarse["tensors"][1] == fine["tensors"][1] | {"pad": coarse["tensors"][1]["pad"]}
    whole = np.frombuffer(fine["tensors"][0]["data"], "<f4")
    assert np.frombuffer(coarse["tensors"][0]["data"], "i1").tolist() == np.rint(whole).tolist()
    assert asked[0]["model"]["size"] < asked[2]["model"]["size"] - 2 * COUNT
    refused = await anna.call("GET", f"/v1/models/{run['model']}")
    problem(refused, 403, "forbidden")  # no task of hers names it
    (one,) = (await controller.http.get("/v1/runs/latest/rounds")).json()
    assert one["bytes"]["down"] == asked[0]["model"]["size"] + asked[2]["model"]["size"]


async def test_a_difference_counts_from_the_controllers_own_model(controller: InProcess) -> None:
    """The given model has 0.5 rounded away; an update that changes nothing brings it back."""
    fine = np.full(COUNT, 0.4, "<f4")
    fine[0] = 127
    first = model(fine, SMALL)
    anna = await join(controller.http, "anna", encodings=ALL)
    await controller.http.put(f"/v1/models/{digest_of(first)}", content=first, headers=MSGPACK)
    given = {"termination": {"federation_rounds": 1}, "initial_model": digest_of(first), "encoding": {"down": "int8"}}
    assert (await controller.http.post("/v1/runs", json=given)).status_code == 201
    task = await anna.task()
    assert task["encoding"] == {"up": "none", "topk_ratio": None}
    assert np.frombuffer((await fetched(anna, task))["tensors"][0]["data"], "i1").tolist() == [127] + [0] * (COUNT - 1)
    unchanged = tensor(np.zeros(COUNT, "<f4")) | {"delta": True}
    assert (await anna.put(task, document(unchanged, tensor(SMALL, "1")))).status_code == 201
    await anna.score(await anna.task(), accuracy=0.5)
    assert (await final(controller.http))[0].tolist() == fine.tolist()


async def test_a_later_run_does_not_inherit_an_encoding(controller: InProcess) -> None:
    """A model that was given coarsely in one run is given whole in the next that asks for none."""
    (anna,) = await begin(controller.http, ("anna", ALL), down="int8")
    coarse = await anna.task()
    await controller.http.post("/v1/runs/current/stop")
    given = {"termination": {"federation_rounds": 1}, "initial_model": digest_of(FIRST)}
    await controller.http.post("/v1/runs", json=given)
    assert coarse["model"]["digest"] != (await anna.task())["model"]["digest"] == digest_of(FIRST)


async def test_a_coded_update_may_be_sent_again(controller: InProcess) -> None:
    """The same body gets the same receipt, another one a 409."""
    (anna,) = await begin(controller.http, ("anna", ALL), up="int8")
    task, body = await anna.task(), document(int8(1), tensor(SMALL, "1"))
    first = await anna.put(task, body)
    again, other = await anna.put(task, body), await anna.put(task, document(int8(2), tensor(SMALL, "1")))
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    problem(other, 409, "different-body")


async def test_a_coded_update_may_come_in_parts(controller: InProcess) -> None:
    """PATCH, and PATCH the rest."""
    (anna,) = await begin(controller.http, ("anna", ALL), up="int8")
    task, body = await anna.task(), document(int8(4), tensor(SMALL, "1"))
    for start, stop, complete in ((0, 100, "?0"), (100, len(body), "?1")):
        told = {"Upload-Offset": str(start), "Upload-Complete": complete, "Upload-Length": str(len(body))}
        headers = {**told, "Content-Type": "application/partial-upload"}
        answer = await anna.call("PATCH", f"/v1/tasks/{task['id']}/result", content=body[start:stop], headers=headers)
    assert answer.status_code == 201, answer.text
    await anna.score(await anna.task(), accuracy=0.5)
    assert (await final(controller.http))[0][:2].tolist() == [2, 0]


LIES = {
    "NaN as the scale": int8(1, scale=float("nan")),
    "a negative scale": int8(1, scale=-0.5),
    "no scale": {key: value for key, value in int8(1).items() if key != "scale"},
    "too few bytes": int8(1, data=bytes(COUNT - 1)),
    "another encoding": int8(1, encoding="bf16", data=bytes(2 * COUNT), scale=None),
    "indices": int8(1, indices=b"\0\0\0\0"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_refused_by_the_tensors_name_and_changes_nothing(controller: InProcess, lie: str) -> None:
    """422 `malformed-update` with `tensor`; the right update is taken afterwards."""
    (anna,) = await begin(controller.http, ("anna", ALL), up="int8")
    task = await anna.task()
    before = await seen(controller.http)
    answer = await anna.put(task, document(LIES[lie], tensor(SMALL, "1")))
    assert problem(answer, 422, "malformed-update")["tensor"] == "0"
    assert await seen(controller.http) == before
    assert (await anna.put(task, document(int8(1), tensor(SMALL, "1")))).status_code == 201


async def test_a_difference_beyond_all_bounds_is_not_finite(controller: InProcess) -> None:
    """What the numbers become is checked, not what was sent: 127 · 3.4e38 is infinite."""
    (anna,) = await begin(controller.http, ("anna", ALL), up="int8")
    answer = await anna.put(await anna.task(), document(int8(127, scale=3.4e38), tensor(SMALL, "1")))
    assert problem(answer, 422, "non-finite-update")["tensor"] == "0"


@pytest.mark.parametrize(("encodings", "up"), [(ALL, "none"), (["none"], "int8"), (ALL, "bf16")])
async def test_what_the_task_did_not_ask_for_is_refused(controller: InProcess, encodings: list[str], up: str) -> None:
    """int8 in a run of another encoding, or from a learner that said that it cannot."""
    (anna,) = await begin(controller.http, ("anna", encodings), up=up)
    answer = await anna.put(await anna.task(), document(int8(1), tensor(SMALL, "1")))
    assert problem(answer, 422, "malformed-update")["got" if up != "bf16" else "encoding"] == "int8"


async def test_models_that_come_from_outside_are_plain(controller: InProcess) -> None:
    """Initial weights and models that an operator puts: there is nothing to differ from, and no encoding asked for."""
    anna = await join(controller.http, "anna", encodings=ALL)
    run = {"termination": {"federation_rounds": 1}, "encoding": {"up": "int8", "down": "int8"}}
    await controller.http.post("/v1/runs", json=run)
    task = await anna.task()
    assert (task["kind"], task["encoding"]) == ("init", None)
    body = msgpack.packb({"tensors": [int8(1, delta=False)]})
    problem(await anna.put(task, body), 422, "malformed-update")
    answer = await controller.http.put(f"/v1/models/{digest_of(body)}", content=body, headers=MSGPACK)
    problem(answer, 422, "malformed-update")


async def test_a_small_body_that_becomes_a_large_update_waits_for_a_slot(controller: InProcess) -> None:
    """A few bytes may stand for a large model: only so many are made plain at once."""
    runtime: Runtime = controller.app.state.runtime
    large = model(np.zeros(100_000, "<f4"))
    anna = await join(controller.http, "anna", encodings=ALL)
    await controller.http.put(f"/v1/models/{digest_of(large)}", content=large, headers=MSGPACK)
    given = {"termination": {"federation_rounds": 1}, "initial_model": digest_of(large), "encoding": {"up": "topk"}}
    await controller.http.post("/v1/runs", json=given)
    task = await anna.task()
    assert task["encoding"] == {"up": "topk", "topk_ratio": 0.01}
    sparse = {"encoding": "topk", "delta": True, "indices": b"\1\0\0\0", "data": np.float32(7).tobytes()}
    body = document({"name": "0", "dtype": "float32", "shape": [100_000], **sparse})
    async with AsyncExitStack() as others:
        for number in range(runtime.settings.upload_slots):
            await others.enter_async_context(runtime.slots.slot(f"other {number}", Incoming(None, 0, 0)))
        sending = asyncio.create_task(anna.put(task, body))
        for _ in range(5):
            assert (await controller.http.get("/healthz")).status_code == 200
        assert not sending.done()
    assert (await sending).json()["size"] == len(body) < 200
    await anna.score(await anna.task(), accuracy=0.5)
    (weights,) = await final(controller.http)
    assert weights.tolist() == [0, 7] + [0] * 99_998


async def test_a_sparse_update_in_chunks_may_be_larger_than_its_model(controller: InProcess) -> None:
    """With `topk_ratio` 1 every element may come with its index: 4 MB for a model of 2 MB."""
    count = 500_000
    large = model(np.zeros(count, "<f4"))
    anna = await join(controller.http, "anna", encodings=ALL)
    await controller.http.put(f"/v1/models/{digest_of(large)}", content=large, headers=MSGPACK)
    encoding = {"up": "topk", "topk_ratio": 1.0}
    given = {"termination": {"federation_rounds": 1}, "initial_model": digest_of(large), "encoding": encoding}
    await controller.http.post("/v1/runs", json=given)
    sparse = {"encoding": "topk", "delta": True, "indices": np.arange(count, dtype="<u4").tobytes()}
    whole = {"name": "0", "dtype": "float32", "shape": [count], **sparse, "data": np.ones(count, "<f4").tobytes()}
    body = document(whole)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 1 << 18):
            yield body[at : at + (1 << 18)]

    path = f"/v1/tasks/{(await anna.task())['id']}/result"
    answer = await anna.call("PUT", path, content=chunks(), headers=MSGPACK)
    assert (answer.status_code, answer.json().get("size")) == (201, len(body)), answer.text
