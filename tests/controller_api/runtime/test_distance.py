"""Updates that are finite and absurd: refused in every form in which they come, and nobody else's is."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import numpy as np
import pytest

from controller_api.runtime.intake import READ_INLINE
from services import ModelStoreConfig
from services.weights import wire
from tests.conftest import InProcess, in_process
from tests.controller_api.driving import Member, begin, digest_of, document, join, model, problem, settings, weights

LARGE = 100_000  # elements of float32: more than is dealt with on the event loop
MSGPACK = {"Content-Type": "application/vnd.msgpack"}


def by_library(*arrays: Any) -> bytes:
    """An update as a plain MessagePack library writes it."""
    return document(*arrays)


def by_project(*arrays: Any, **extra: Any) -> bytes:
    """The same laid out as the models of this project are."""
    groups = {name: wire.name_tensors([np.asarray(array) for array in group]) for name, group in extra.items()}
    tensors = wire.name_tensors([np.asarray(array) for array in arrays])
    return b"".join(wire.encode(tensors, {}, {"num_training_examples": 10}, groups))


both = pytest.mark.parametrize("write", [by_library, by_project])


async def from_model(http: httpx.AsyncClient, *arrays: Any, **config: Any) -> tuple[Member, dict[str, Any]]:
    """A learner in a run that begins with these arrays, and its task."""
    first, anna = by_project(*arrays), await join(http, "anna")
    assert (await http.put(f"/v1/models/{digest_of(first)}", content=first, headers=MSGPACK)).is_success
    given = {"initial_model": digest_of(first), "termination": {"federation_rounds": 2}, "evaluation": {"every": 0}}
    answer = await http.post("/v1/runs", json={**given, **config})
    assert answer.status_code == 201, answer.text
    return anna, await anna.task()


@both
@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize(("dtype", "limit"), [("<f4", 1e18), ("<f8", 1e150)])
async def test_it_names_tensor_limit_and_norm(
    controller: InProcess, write: Any, size: int, dtype: str, limit: float
) -> None:
    """422 `invalid-update`; the same task takes what is near the limit, and the model is of that."""
    zeros = [np.zeros(2, dtype), np.zeros(size, dtype)]
    anna, task = await from_model(controller.http, *zeros)
    spoilt, near = zeros[1].copy(), zeros[1].copy()
    spoilt[[1, -1]], near[-1] = 0.8 * limit, 0.8 * limit
    told = problem(await anna.put(task, write(zeros[0], spoilt)), 422, "invalid-update")
    assert (told["tensor"], told["limit"]) == ("1", limit)
    assert told["got"] == pytest.approx(0.8 * limit * math.sqrt(2), rel=1e-6)
    assert "1.13e+" in told["detail"]
    assert (await anna.call("GET", anna.path)).json()["health"] == "failing"
    assert (await anna.put(task, write(zeros[0], near))).status_code == 201


@both
async def test_it_is_the_difference_that_counts(controller: InProcess, write: Any) -> None:
    """From a model whose own numbers are absurd, an update near it is taken, and one at 0 is too far."""
    absurd = np.full(3, 3e25, "<f4")
    anna, task = await from_model(controller.http, absurd)
    problem(await anna.put(task, write(np.zeros(3, "<f4"))), 422, "invalid-update")
    assert (await anna.put(task, write(absurd))).status_code == 201


async def test_a_model_is_looked_at_once(controller: InProcess) -> None:
    """And forgotten with it."""
    members = await begin(controller.http, "anna", "ben", evaluation={"every": 0}, termination={"federation_rounds": 5})
    known = controller.app.state.runtime.models.ordinary
    for value in range(1, 5):
        for one in members:
            await one.work(float(value))
    assert 1 <= len(known) <= 2
    assert all(known.values())


async def test_updates_that_come_together_have_their_model_read_once(controller: InProcess) -> None:
    """The model that a run begins with; those that the controller makes are never read for it."""
    runtime, size = controller.app.state.runtime, (READ_INLINE >> 2) + 1  # so that it is read in another thread
    first, members = by_project(np.zeros(size, "<f4")), [await join(controller.http, name) for name in "abc"]
    assert (await controller.http.put(f"/v1/models/{digest_of(first)}", content=first, headers=MSGPACK)).is_success
    given = {"initial_model": digest_of(first), "termination": {"federation_rounds": 3}, "evaluation": {"every": 0}}
    assert (await controller.http.post("/v1/runs", json=given)).status_code == 201
    read, document = [], runtime.document

    async def reading(digest: str) -> memoryview:
        read.append(digest)
        found: memoryview = await document(digest)
        return found

    runtime.document = reading
    for value in (1.0, 2.0):
        tasks = [await one.task() for one in members]
        update = by_project(np.full(size, value, "<f4"))
        answers = await asyncio.gather(*(one.put(task, update) for one, task in zip(members, tasks, strict=True)))
        assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert read == [digest_of(first)]


async def test_what_transforms_make_of_it_counts(controller: InProcess) -> None:
    """A clipped update is as near as its bound."""
    clip = {"transforms": [{"name": "ClipNorm", "norm": 1.5}]}
    anna, task = await from_model(controller.http, np.zeros(2, "<f4"), **clip)
    assert (await anna.put(task, by_project(np.array([3e20, 0], "<f4")))).status_code == 201


async def test_a_coded_difference_is_as_far_as_what_it_makes(controller: InProcess) -> None:
    """Sent as int8: the plain update is what is looked at."""
    zeros = np.zeros(1024, "<f4")
    first, anna = by_project(zeros), await join(controller.http, "anna", encodings=["none", "int8"])
    http = controller.http
    assert (await http.put(f"/v1/models/{digest_of(first)}", content=first, headers=MSGPACK)).is_success
    given = {"initial_model": digest_of(first), "termination": {"federation_rounds": 2}, "encoding": {"up": "int8"}}
    assert (await http.post("/v1/runs", json=given)).status_code == 201
    coded = {"name": "0", "dtype": "float32", "shape": [1024], "encoding": "int8", "delta": True, "scale": 1e30}
    body = document({**coded, "data": b"\x01" * 1024})
    problem(await anna.put(await anna.task(), body), 422, "invalid-update")


async def test_what_goes_beside_the_model_is_a_difference_too(controller: InProcess) -> None:
    """SCAFFOLD: a control that no control can follow."""
    zeros = np.zeros(2, "<f4")
    anna, task = await from_model(controller.http, zeros, algorithm="SCAFFOLD")
    far, near = np.array([1e19, 0], "<f4"), np.array([1e17, 0], "<f4")
    told = problem(await anna.put(task, by_project(zeros, control=[far])), 422, "invalid-update")
    assert told["limit"] == 1e18
    assert (await anna.put(task, by_project(zeros, control=[near]))).status_code == 201


async def test_initial_weights_of_a_learner_are_no_more(controller: InProcess) -> None:
    """Others would have to train them."""
    anna = await join(controller.http, "anna")
    await controller.http.post("/v1/runs", json={"termination": {"federation_rounds": 1}})
    task = await anna.task()
    assert task["kind"] == "init"
    problem(await anna.put(task, model(np.array([1e20], "<f4"))), 422, "invalid-update")
    assert (await anna.put(task, model(*weights()))).status_code == 201


async def test_with_models_on_a_disk(tmp_path: Any) -> None:
    """The model is read from there."""
    store = ModelStoreConfig("OnDisk", 1)
    async with in_process(settings(data_dir=tmp_path, model_store="OnDisk"), store=store) as controller:
        anna, task = await from_model(controller.http, np.zeros(LARGE, "<f4"))
        far = np.full(LARGE, 1e16, "<f4")
        problem(await anna.put(task, by_project(far)), 422, "invalid-update")
        assert (await anna.put(task, by_project(far / 10))).status_code == 201
