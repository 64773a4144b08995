"""A Redis that goes away at the worst moments of a round: nothing is lost, counted twice, or left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller_api import runtime as runtime_module
from services import ModelStoreConfig
from services.engine import aggregate
from services.store import Redis
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import arrays_of, begin, document, problem, weights
from tests.redis_server import RedisServer

Launch = Callable[..., RedisServer]
ONE_ROUND: dict[str, Any] = {"termination": {"federation_rounds": 1}}


@asynccontextmanager
async def on(server: RedisServer) -> AsyncIterator[tuple[InProcess, Redis]]:
    """A controller whose models are on this server, and its store."""
    config = ModelStoreConfig("Redis", 1, "127.0.0.1", server.port)
    async with in_process(store=config) as controller:
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
        assert len(store.lineage(anna.id)) == 1
        await anna.work(accuracy=0.5)
        (shown,) = (await controller.http.get("/v1/runs/latest/rounds")).json()
        assert (shown["state"], shown["completed"]) == ("closed", ["anna"])


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
