"""A Redis that goes away, freezes or is emptied at the worst moments of a round: nothing is counted twice or left
behind, nothing is lost that Redis has not lost, and what it has lost is named."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller_api.runtime import runtime as runtime_module
from services import ModelStoreConfig
from services.engine import aggregate
from services.messages import TERMINAL
from services.store import Redis, redis_server
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import (
    MSGPACK,
    Member,
    arrays_of,
    begin,
    digest_of,
    document,
    join,
    model,
    problem,
    settings,
    weights,
    whole_round,
)
from tests.redis_server import RedisServer

Launch = Callable[..., RedisServer]
ONE_ROUND: dict[str, Any] = {"termination": {"federation_rounds": 1}}
PATIENCE_S = 3.0  # of a call with a Redis that does not answer, in these tests
AT_ONCE_S = 1.0


@asynccontextmanager
async def on(server: RedisServer, folder: Path | None = None) -> AsyncIterator[tuple[InProcess, Redis]]:
    """A controller whose models are on this server, and its store; its folder, if it is to have one of its own."""
    config = ModelStoreConfig("Redis", 1, "127.0.0.1", server.port)
    given = settings(data_dir=folder) if folder else None
    async with in_process(given, store=config) as controller:
        yield controller, controller.app.state.runtime.store


def models(store: Redis) -> list[bytes]:
    """The keys of the documents that Redis holds."""
    found: list[bytes] = store._client.keys("metis:*")
    return sorted(found)


async def test_an_aggregation_waits_for_the_store(own_redis: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis dies when a round has its updates, and stays away for longer than a call of the store is patient."""
    server, calls = own_redis(), 0

    def unlucky(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            server.kill()
        elif calls == 2:
            server.start()
        return aggregate(*arguments)

    monkeypatch.setattr(runtime_module, "aggregate", unlucky)
    async with on(server) as (controller, _):
        anna, bert = await begin(controller.http, "anna", "bert", **ONE_ROUND)
        await anna.work(1.0)
        await bert.work(3.0)
        for one in (anna, bert):
            assert (await one.work(accuracy=0.5))["kind"] == "evaluate"
        run = (await controller.http.get("/v1/runs/latest")).json()
        assert (run["state"], calls) == ("completed", 2)
        final = (await controller.http.get("/v1/runs/latest/model")).content
        assert arrays_of(final) == [[2.0] * 6, [2.0] * 3]


async def test_an_update_is_counted_once_when_the_store_comes_back(own_redis: Launch) -> None:
    """503 while it is away and nothing is taken; the same call succeeds afterwards, and once more is a replay."""
    server = own_redis()
    async with on(server) as (controller, store):
        (anna,) = await begin(controller.http, "anna", **ONE_ROUND)
        task, body = await anna.task(), document(*weights(5.0))
        server.kill()
        problem(await anna.put(task, body), 503, "store-unavailable")
        server.start()
        assert [(await anna.put(task, body)).status_code for _ in range(2)] == [201, 200]
        await anna.work(accuracy=0.5)
        (shown,) = (await controller.http.get("/v1/runs/latest/rounds")).json()
        assert (shown["state"], shown["completed"]) == ("closed", ["anna"])

        async def remembered() -> bool:
            return len(store.lineage(anna.id)) == 1

        await until(remembered, 20)


async def test_what_the_store_could_not_forget_is_forgotten_when_it_is_back(own_redis: Launch) -> None:
    """A learner leaves and a run ends while Redis is away: afterwards no update of it is there, and no old model."""
    server = own_redis()
    async with on(server) as (controller, store):
        (anna,) = await begin(controller.http, "anna", **ONE_ROUND)
        await anna.work(1.0)
        await anna.work(accuracy=0.5)
        assert f"metis:lineage:{anna.id}".encode() in models(store)
        server.kill()
        assert (await anna.call("DELETE", anna.path)).status_code == 204

        async def owed() -> bool:
            return (store.erase, anna.id) in controller.app.state.runtime.calls._owed

        await until(owed, 20)
        server.start()

        async def erased() -> bool:
            return all(b":model:sha256-" in key or key.endswith(b":owner") for key in models(store))

        await until(erased, 20)


async def test_a_remembered_update_is_in_its_lineage_when_the_store_is_back(
    own_redis: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis dies between the update and its place in the lineage: the learner is told that it was taken, and later it
    is erased with the others."""
    server = own_redis()
    async with on(server) as (controller, store):
        (anna,) = await begin(controller.http, "anna")
        remember, calls = store.remember, list[str]()

        def unlucky(learner: str, key: str) -> None:
            calls.append(key)
            if len(calls) == 1:
                server.kill()
            remember(learner, key)

        monkeypatch.setattr(store, "remember", unlucky)
        task = await anna.task()
        assert (await anna.put(task, document(*weights(5.0)))).status_code == 201
        server.start()

        async def remembered() -> bool:
            return len(store.lineage(anna.id)) == 1

        await until(remembered, 20)
        assert len(calls) > 1
        assert store.lineage(anna.id) == calls[:1]


# ---- emptied
async def failed_in_words(http: httpx.AsyncClient, what: str, within_s: float = 20.0) -> None:
    """The run has failed, and its reason names what is gone; the controller takes work."""

    async def ended() -> Any:
        run = (await http.get("/v1/runs/latest")).json()
        return run if run["state"] in TERMINAL else None

    run = await until(ended, within_s)
    assert run["state"] == "failed"
    assert f"there is no model {what}" in run["reason"]
    assert "in Redis at 127.0.0.1:" in run["reason"]
    assert (await http.get("/readyz")).status_code == 200


async def takes_the_next_run(http: httpx.AsyncClient, *members: Member) -> None:
    """A run of one round completes, with what these learners send to it."""
    given = {"min_learners": len(members), **ONE_ROUND}
    assert (await http.post("/v1/runs", json=given)).status_code == 201
    asked = [one for one in members if (await one.call("GET", f"{one.path}/task")).status_code == 200]
    assert len(asked) == 1
    assert (await asked[0].work(0.0))["kind"] == "init"
    for number, one in enumerate(members):
        await one.work(2.0 * number)
    for one in members:
        assert (await one.work(accuracy=0.5))["kind"] == "evaluate"
    run = (await http.get("/v1/runs/latest")).json()
    assert run["state"] == "completed", run["reason"]
    final = (await http.get("/v1/runs/latest/model")).content
    assert arrays_of(final) == [[len(members) - 1.0] * 6, [len(members) - 1.0] * 3]


async def test_a_redis_that_is_emptied_in_a_round_fails_the_run_in_words(own_redis: Launch) -> None:
    """FLUSHALL between two updates of a round: no model is made of the rest; the controller goes on."""
    async with on(own_redis()) as (controller, store):
        members = anna, bert = await begin(controller.http, "anna", "bert")
        first = await anna.task()
        await anna.work(1.0)
        store._client.flushall()
        await bert.work(3.0)
        await failed_in_words(controller.http, first["model"]["digest"])
        (shown,) = (await controller.http.get("/v1/runs/latest/rounds")).json()
        assert (shown["model"], shown["completed"]) == (None, ["anna", "bert"])
        await takes_the_next_run(controller.http, *members)


async def test_an_update_that_redis_has_lost_is_named(own_redis: Launch) -> None:
    """The model is there still, an update that was acknowledged is not: a mean without it would be a wrong one."""
    async with on(own_redis()) as (controller, store):
        members = anna, bert = await begin(controller.http, "anna", "bert")
        task = await anna.work(1.0)
        (lost,) = (key.decode().removeprefix("metis:model:") for key in models(store) if task["id"].encode() in key)
        store._client.unlink(f"metis:model:{lost}")
        await bert.work(3.0)
        await failed_in_words(controller.http, lost)
        await takes_the_next_run(controller.http, *members)


async def test_a_model_that_is_gone_when_a_learner_asks_for_it_fails_the_run(own_redis: Launch) -> None:
    """Nobody can do a task whose model is lost: the run ends at once, and learners are not given it again and again."""
    async with on(own_redis()) as (controller, store):
        anna, bert = await begin(controller.http, "anna", "bert")
        lost = (await anna.task())["model"]["digest"]
        store._client.flushall()
        problem(await anna.call("GET", f"/v1/models/{lost}"), 404, "unknown-model")
        await failed_in_words(controller.http, lost, 2.0)
        for one in (anna, bert):
            assert (await one.call("GET", f"{one.path}/task")).status_code == 204
        await takes_the_next_run(controller.http, anna, bert)


async def test_a_model_that_redis_has_lost_can_be_put_again(own_redis: Launch) -> None:
    """An operator who sends it again has it stored, and a run begins with it."""
    async with on(own_redis()) as (controller, store):
        http, body = controller.http, model(*weights())
        path, headers = f"/v1/models/{digest_of(body)}", {"Content-Type": MSGPACK}
        assert (await http.put(path, content=body, headers=headers)).status_code == 201
        store._client.flushall()
        assert (await http.put(path, content=body, headers=headers)).status_code == 201
        anna = await join(http, "anna")
        given = {"initial_model": digest_of(body), **ONE_ROUND}
        assert (await http.post("/v1/runs", json=given)).status_code == 201
        assert (await anna.call("GET", path)).content == body
        await anna.work(1.0)
        await anna.work(accuracy=0.5)
        assert (await http.get("/v1/runs/latest")).json()["state"] == "completed"


async def test_an_update_is_kept_when_its_controller_died_as_it_noted_it(
    own_redis: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The newest of a learner is in its lineage, the one before not yet dropped: started again, the controller counts
    the newest."""
    server = own_redis()
    async with on(server, tmp_path) as (before, store):
        members = await begin(before.http, "anna", "bert")
        await whole_round(members, 1.0, 0.5)
        monkeypatch.setattr(store, "_drop", lambda *_: None)  # it came so far
        await members[0].work(2.0)
        assert len(store.lineage(members[0].id)) == 2
    async with on(server, tmp_path) as (after, store):
        anna, bert = (Member(after.http, one.id, one.name, one.token) for one in members)
        await bert.work(4.0)
        for one in (anna, bert):
            assert (await one.work(accuracy=0.5))["kind"] == "evaluate"
        run = (await after.http.get("/v1/runs/latest")).json()
        assert run["state"] == "completed", run["reason"]
        assert arrays_of((await after.http.get("/v1/runs/latest/model")).content) == [[3.0] * 6, [3.0] * 3]
        assert len(store.lineage(anna.id)) == 1


async def test_a_controller_that_is_started_on_an_emptied_redis(own_redis: Launch, tmp_path: Path) -> None:
    """The run that was going on has failed, its reason names the model; learners are known, the next run completes."""
    server = own_redis()
    async with on(server, tmp_path) as (before, store):
        members = await begin(before.http, "anna", "bert")
        task = await members[0].work(1.0)
        store._client.flushall()
    async with on(server, tmp_path) as (after, _):
        await failed_in_words(after.http, task["model"]["digest"])
        members = [Member(after.http, one.id, one.name, one.token) for one in members]
        await takes_the_next_run(after.http, *members)


# ---- frozen
async def test_a_redis_that_freezes_holds_up_nobody_for_long(
    own_redis: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Uploads and downloads get 503 within the store's patience, what needs no model is answered at once; thawed, it
    goes on, and each update counts once."""
    monkeypatch.setitem(redis_server.LIMITS, "socket_timeout", PATIENCE_S)
    server = own_redis()
    async with on(server, tmp_path) as (controller, store):
        http = controller.http
        anna, bert = await begin(http, "anna", "bert", **ONE_ROUND)
        task, other, body = await anna.task(), await bert.task(), document(*weights(1.0))
        server.child.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            upload = asyncio.create_task(anna.put(task, body))
            download = asyncio.create_task(bert.call("GET", f"/v1/models/{other['model']['digest']}"))
            await asyncio.sleep(0.1)
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/v1/federation")).json()["state"] == "training"
            assert (await anna.call("POST", f"{anna.path}/heartbeat", json={})).status_code == 204
            await join(http, "carl")
            assert time.monotonic() - began < AT_ONCE_S
            answer = await http.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (503, "store-unavailable")
            assert not upload.done()
            for answer in (await upload, await download):
                problem(answer, 503, "store-unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            assert time.monotonic() - began < PATIENCE_S + AT_ONCE_S
        finally:
            server.child.send_signal(signal.SIGCONT)

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await until(ready, 5)
        assert [(await anna.put(task, body)).status_code for _ in range(2)] == [201, 200]
        assert (await bert.put(other, document(*weights(3.0)))).status_code == 201
        for one in (anna, bert):
            assert (await one.work(accuracy=0.5))["kind"] == "evaluate"
        assert (await http.get("/v1/runs/latest")).json()["state"] == "completed"
        final = (await http.get("/v1/runs/latest/model")).content
        assert arrays_of(final) == [[2.0] * 6, [2.0] * 3]

        async def remembered() -> bool:
            return [len(store.lineage(one.id)) for one in (anna, bert)] == [1, 1]

        await until(remembered, 20)


async def test_many_who_wait_for_a_frozen_redis_hold_up_nobody_else(
    own_redis: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """More than there are threads: who needs no model is answered at once, and no download waits for the others'."""
    monkeypatch.setitem(redis_server.LIMITS, "socket_timeout", PATIENCE_S)
    server = own_redis()
    async with on(server, tmp_path) as (controller, _):
        http = controller.http
        members = await begin(http, *(f"learner-{number}" for number in range(40)))
        wanted = (await members[0].task())["model"]["digest"]
        server.child.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        downloads = [asyncio.create_task(one.call("GET", f"/v1/models/{wanted}")) for one in members]
        try:
            await asyncio.sleep(0.1)
            async with asyncio.timeout(AT_ONCE_S):
                await join(http, "late")
                assert (await http.get("/v1/federation")).json()["state"] == "training"
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + 3 * PATIENCE_S):
                answers = await asyncio.gather(*downloads)
            assert {one.status_code for one in answers} == {503}
            assert time.monotonic() - began < 3 * PATIENCE_S
        finally:
            server.child.send_signal(signal.SIGCONT)
            await asyncio.gather(*downloads, return_exceptions=True)
