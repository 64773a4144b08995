"""Transforms end to end: what is sent is changed before it counts, and is still known when it is sent again."""

from __future__ import annotations

import math
from typing import Any

import httpx
import numpy as np
import pytest

from controller_api.runtime import intake
from services.weights import wire
from tests.conftest import InProcess
from tests.controller_api.driving import Member, begin, digest_of, document, join, model, problem, seen, tensor, weights

LARGE = 100_000  # elements of float32: more than is dealt with on the event loop
CLIP: dict[str, Any] = {"transforms": [{"name": "ClipNorm", "norm": 1.5}]}
MSGPACK = {"Content-Type": "application/vnd.msgpack"}


def by_library(*arrays: Any) -> bytes:
    """An update as a plain MessagePack library writes it."""
    return document(*arrays)


def by_project(*arrays: Any) -> bytes:
    """The same laid out as the models of this project are."""
    tensors = wire.name_tensors([np.asarray(array) for array in arrays])
    return b"".join(wire.encode(tensors, {}, {"num_training_examples": 10}))


both = pytest.mark.parametrize("write", [by_library, by_project])


async def begin_from(http: httpx.AsyncClient, first: bytes, *names: str, **config: Any) -> list[Member]:
    """Learners in a run of one round that begins with this model."""
    members = [await join(http, name, encodings=["none", "int8"]) for name in names]
    assert (await http.put(f"/v1/models/{digest_of(first)}", content=first, headers=MSGPACK)).is_success
    run = {"min_learners": len(members), "initial_model": digest_of(first), "termination": {"federation_rounds": 1}}
    answer = await http.post("/v1/runs", json={**run, **config})
    assert answer.status_code == 201, answer.text
    return members


async def made(http: httpx.AsyncClient, *members: Member) -> list[Any]:
    """The arrays of the model that a round made, once its members have scored it."""
    for one in members:
        assert (await one.score(await one.task(), accuracy=0.5)).status_code == 201
    return wire.decode((await http.get("/v1/runs/latest/model")).content).arrays


async def records(http: httpx.AsyncClient, kind: str = "train") -> dict[tuple[int, str], list[dict[str, Any]]]:
    """By round and learner, what the results say of the transforms of an update."""
    tasks = (await http.get("/v1/runs/latest/results")).json()["tasks"]
    return {(one["round"], one["learner"]): one["transforms"] for one in tasks if one["kind"] == kind}


@both
async def test_a_huge_update_is_clipped_and_may_be_sent_again(controller: InProcess, write: Any) -> None:
    """Nine values of 1,000 have the norm 3,000: with the bound 1.5 each becomes 0.5; the same body is a replay."""
    (anna,) = await begin(controller.http, "anna", **CLIP)
    task, body = await anna.task(), write(*weights(1000))
    first, again = await anna.put(task, body), await anna.put(task, body)
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    problem(await anna.put(task, write(*weights(0.5))), 409, "different-body")
    for array in await made(controller.http, anna):
        np.testing.assert_array_equal(array, np.full(array.shape, 0.5, np.float32))
    done = {"name": "ClipNorm", "norm": pytest.approx(3000, rel=1e-12), "bound": 1.5, "did": "clipped"}
    assert (await records(controller.http))[1, "anna"] == [done]
    assert (await records(controller.http, "evaluate"))[1, "anna"] == []


@both
@pytest.mark.parametrize("way", ["whole", "parts", "unsized"])
async def test_a_large_update_is_clipped_however_it_comes(controller: InProcess, write: Any, way: str) -> None:
    """Off the event loop; in one piece, resumed, and of a length that nobody said."""
    first = model(np.zeros(LARGE, "<f4"), np.zeros(3, "<i8"))
    if write is by_project:
        first = b"".join(wire.encode(wire.decode(first).tensors))
    (anna,) = await begin_from(controller.http, first, "anna", **CLIP)
    task, body = await anna.task(), write(np.full(LARGE, -7, "<f4"), np.full(3, 7, "<i8"))
    path = f"/v1/tasks/{task['id']}/result"
    if way == "parts":
        for start, stop, complete in ((0, 300_000, "?0"), (300_000, len(body), "?1")):
            told = {"Upload-Offset": str(start), "Upload-Complete": complete, "Upload-Length": str(len(body))}
            headers = {**told, "Content-Type": "application/partial-upload"}
            answer = await anna.call("PATCH", path, content=body[start:stop], headers=headers)
    elif way == "unsized":

        async def pieces() -> Any:
            yield body[:1000]
            yield body[1000:]

        answer = await anna.call("PUT", path, content=pieces(), headers=MSGPACK)
    else:
        answer = await anna.put(task, body)
    assert answer.status_code == 201, answer.text
    assert (await anna.put(task, body)).status_code == 200
    moved, whole = await made(controller.http, anna)
    assert np.linalg.norm(moved.astype(float)) == pytest.approx(1.5, rel=1e-6)
    assert (moved == moved[0]).all()
    assert moved[0] < 0
    assert whole.tolist() == [7, 7, 7]


async def test_a_coded_update_is_clipped_once_it_is_plain(controller: InProcess) -> None:
    """int8 differences of 4 · 0.5 and -3 · 0.5 from a model of ones: (2, -1.5) has the norm 2.5, with 1.5 it is 0.6."""
    first = model(np.ones(300, "<f4"))
    coding = {"encoding": {"up": "int8"}}
    (anna,) = await begin_from(controller.http, first, "anna", **CLIP, **coding)
    data = np.zeros(300, "i1")
    data[:2] = 4, -3
    sent = {**tensor(np.zeros(300, "<f4")), "encoding": "int8", "delta": True, "scale": 0.5, "data": data.tobytes()}
    task, body = await anna.task(), document(sent)
    assert [(await anna.put(task, body)).status_code for _ in range(2)] == [201, 200]
    (moved,) = await made(controller.http, anna)
    np.testing.assert_allclose(moved, [2.2, 0.1] + [1] * 298, rtol=1e-6)
    assert (await records(controller.http))[1, "anna"][0]["norm"] == 2.5


@both
async def test_bounds_follow_the_rounds_whatever_the_order_of_arrival(controller: InProcess, write: Any) -> None:
    """Norms 30, 60 and 90 of the bound 60, quantile 0: two of three lie within, so the next one is 60 · exp(-2/3).

    Three learners arrive in every order; each round's updates have the bound of its beginning, and the model is one.
    """
    adaptive = {"name": "AdaptiveClipNorm", "initial_norm": 60.0, "quantile": 0.0, "learning_rate": 1.0}
    digests = []
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        members = [await join(controller.http, name) for name in ("anna", "ben", "cleo")]
        first = model(*weights())
        await controller.http.put(f"/v1/models/{digest_of(first)}", content=first, headers=MSGPACK)
        run = {"min_learners": 3, "initial_model": digest_of(first), "termination": {"federation_rounds": 2}}
        await controller.http.post("/v1/runs", json={**run, "transforms": [adaptive]})
        before = 0.0
        for step in (10, 1):  # nine values of 10, 20 and 30, then of 1, 2 and 3 more than the model
            for index in order:
                arrays = weights(before + step * (index + 1))
                assert (await members[index].put(await members[index].task(), write(*arrays))).status_code == 201
            before = (await made(controller.http, *members))[0].flat[0]
        found = await records(controller.http)
        told = [found[1, name][0] for name in ("anna", "ben", "cleo")]
        assert [(one["norm"], one["bound"], one["did"]) for one in told] == [
            (30, 60, "kept"),
            (60, 60, "kept"),
            (90, 60, "clipped"),
        ]
        second = [found[2, name][0]["bound"] for name in ("anna", "ben", "cleo")]
        assert second == [pytest.approx(60 * math.exp(-2 / 3), rel=1e-14)] * 3
        digests.append((await controller.http.get("/v1/runs/latest")).json()["model"])
        for one in members:
            await one.call("DELETE", one.path)
    assert len(set(digests)) == 1


@both
async def test_an_outlier_counts_as_no_change(controller: InProcess, write: Any) -> None:
    """Of two equal learners one sends infinities: the model moves by half of what the other one sent."""
    zeroing: dict[str, Any] = {"transforms": [{"name": "ZeroOutliers", "norm": 8.0}]}
    anna, ben = await begin(controller.http, "anna", "ben", **zeroing)
    assert (await anna.put(await anna.task(), write(*weights(math.inf)))).status_code == 201
    assert (await ben.put(await ben.task(), write(*weights(8)))).status_code == 201
    for array in await made(controller.http, anna, ben):
        assert (array == 4).all()
    found = await records(controller.http)
    assert found[1, "anna"] == [{"name": "ZeroOutliers", "norm": None, "bound": 8.0, "did": "zeroed"}]
    assert found[1, "ben"] == [{"name": "ZeroOutliers", "norm": 8.0, "bound": 8.0, "did": "kept"}]


@both
@pytest.mark.parametrize("name", ["ClipNorm", "ZeroOutliers"])
async def test_what_is_not_finite_afterwards_is_refused(controller: InProcess, write: Any, name: str) -> None:
    """NaN is refused by the tensor's name and changes nothing; the right update is taken afterwards."""
    (anna,) = await begin(controller.http, "anna", transforms=[{"name": name, "norm": 1.5}])
    task, before = await anna.task(), await seen(controller.http)
    whole, part = weights(1)
    part[2] = math.nan
    assert problem(await anna.put(task, write(whole, part)), 422, "non-finite-update")["tensor"] == "1"
    assert await seen(controller.http) == before
    assert (await anna.put(task, write(*weights(1)))).status_code == 201


async def test_a_wrong_transform_is_refused_when_the_run_is_posted(controller: InProcess) -> None:
    """A name or a parameter that there is not, with the nearest; no run begins."""
    for given, told in (
        ({"name": "ClipNorn", "norm": 1}, "did you mean ClipNorm?"),
        ({"name": "ClipNorm", "nrom": 1}, "did you mean norm?"),
        ({"name": "AdaptiveClipNorm", "quantile": 2}, "quantile must be a finite number of at least 0 and at most 1"),
    ):
        run = {"termination": {"federation_rounds": 1}, "transforms": [given]}
        answer = await controller.http.post("/v1/runs", json=run)
        assert told in problem(answer, 422, "invalid-config")["detail"]
    assert (await controller.http.get("/v1/runs")).json() == []


async def test_a_run_without_transforms_does_nothing_for_them(
    controller: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the model is looked up."""

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(intake, "transforming", never)
    monkeypatch.setattr(intake, "transform", never)
    (anna,) = await begin(controller.http, "anna")
    assert (await anna.put(await anna.task(), by_project(*weights(1000)))).status_code == 201
    assert (await records(controller.http))[1, "anna"] == []


async def test_an_asynchronous_update_has_the_bound_of_its_model(controller: InProcess) -> None:
    """Ben trains from model 0 while anna makes models 1 and 2: his update has the bound of model 0, anna's follow.

    All lie within, with quantile 0: each aggregation makes the bound e times smaller.
    """
    adaptive = {"name": "AdaptiveClipNorm", "initial_norm": 60.0, "quantile": 0.0, "learning_rate": 1.0}
    how: dict[str, Any] = {"scheduler": "Asynchronous", "aggregation_rule": "FedAsync", "evaluation": {"every": 0}}
    ending, chain = {"federation_rounds": 3}, [adaptive]
    anna, ben = await begin(controller.http, "anna", "ben", termination=ending, transforms=chain, **how)
    first = await ben.task()
    for _ in range(2):
        assert (await anna.put(await anna.task(), by_project(*weights(0)))).status_code == 201
    await anna.task()
    assert (await ben.put(first, by_project(*weights(0)))).status_code == 201
    tasks = (await controller.http.get("/v1/runs/latest/results")).json()["tasks"]
    told = [(one["learner"], one["transforms"][0]["bound"]) for one in tasks if one["transforms"]]
    assert sorted(told) == [("anna", pytest.approx(60 / math.e)), ("anna", 60.0), ("ben", 60.0)]
