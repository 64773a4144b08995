"""Whether a controller takes work, and what holds up a run, while its model store is away, full or slow."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller_api.durability import store_calls
from controller_api.runtime import runtime as runtime_module
from services import ModelStoreConfig
from services.engine import aggregate
from services.errors import DiskFull, FederationError, StoreUnavailable
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import begin, document, join, problem, settings, weights
from tests.redis_server import RedisServer

ONE_ROUND: dict[str, Any] = {"termination": {"federation_rounds": 1}}


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "LOOK_AGAIN_S", 0.0)


async def status(controller: InProcess) -> tuple[int, str]:
    """Of /readyz; /healthz is well all the time."""
    assert (await controller.http.get("/healthz")).status_code == 200
    answer = await controller.http.get("/readyz")
    return answer.status_code, answer.json()["status"]


@pytest.mark.usefixtures("_fresh")
async def test_it_is_not_ready_while_its_store_is_away(controller: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked whether it has a model, a store that is away refuses, one that is there knows it or does not."""
    store = controller.app.state.runtime.store
    assert await status(controller) == (200, "ready")
    with monkeypatch.context() as patched:

        def away(key: str) -> memoryview:
            raise StoreUnavailable("it is away")

        patched.setattr(store, "get", away)
        assert await status(controller) == (503, "store-unavailable")
    assert await status(controller) == (200, "ready")


@pytest.mark.usefixtures("_fresh")
async def test_redis_that_is_gone_is_seen_at_once(own_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """And that it is back."""
    server = own_redis()
    store = ModelStoreConfig("Redis", 1, "127.0.0.1", server.port)
    async with in_process(settings(data_dir=tmp_path), store=store) as controller:
        assert await status(controller) == (200, "ready")
        server.kill()
        assert await status(controller) == (503, "store-unavailable")
        server.start()
        assert await status(controller) == (200, "ready")


@pytest.fixture
def stuck(controller: InProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The store of `controller` does not answer before the test's end; what it was asked for."""
    runtime, asked, released = controller.app.state.runtime, list[str](), threading.Event()

    def wait(key: str) -> memoryview:
        asked.append(key)
        released.wait(20)
        return memoryview(b"")

    monkeypatch.setattr(runtime.calls, "_blocking", True)
    monkeypatch.setattr(runtime.store, "get", wait)
    yield asked
    released.set()


async def test_a_store_that_hangs_is_asked_once_for_all_who_want_to_know(
    controller: InProcess, stuck: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is answered within a bound, and no more than one thread waits."""
    monkeypatch.setattr(store_calls, "LOOK_S", 0.1)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*(status(controller) for _ in range(50)))
        assert {*found, await status(controller)} == {(503, "store-unavailable")}
    assert len(stuck) == 1


@pytest.mark.parametrize(
    ("error", "patience_s"), [(StoreUnavailable("the store is away"), 30), (DiskFull("no space left"), 3600)]
)
async def test_an_aggregation_that_waits_for_the_store_says_so(
    controller: InProcess, monkeypatch: pytest.MonkeyPatch, error: FederationError, patience_s: float
) -> None:
    """Why, since when, when it tries again and when it gives up; then it goes on by itself."""
    mended = threading.Event()

    def unlucky(*arguments: Any) -> Any:
        if not mended.is_set():
            raise error
        return aggregate(*arguments)

    monkeypatch.setattr(runtime_module, "aggregate", unlucky)
    monkeypatch.setattr(store_calls, "PAUSES", (30.0,))
    monkeypatch.setattr(store_calls, "FULL_PAUSE_S", 30.0)
    pause_ends = asyncio.Event()
    monkeypatch.setattr(controller.app.state.runtime.calls, "_stopped", pause_ends)
    anna, bert = await begin(controller.http, "anna", "bert", **ONE_ROUND)
    await anna.work(1.0)
    await bert.work(1.0)

    async def held_up() -> Any:
        shown = (await controller.http.get("/v1/federation")).json()
        assert shown["run"]["waiting_for"] == shown["waiting_for"]
        return shown["waiting_for"] if "held up" in shown["waiting_for"] else None

    told = await until(held_up)
    assert told == (
        f"aggregating 2 updates into model 1; held up for 0 s: {error.detail}; tries again in 30 s,"
        f" the run fails in {patience_s} s"
    )
    assert (await controller.http.get("/v1/runs/latest")).json()["waiting_for"] == told
    mended.set()
    pause_ends.set()
    for one in (anna, bert):
        assert (await one.work(accuracy=0.5))["kind"] == "evaluate"
    shown = (await controller.http.get("/v1/federation")).json()
    assert (shown["run"]["state"], shown["waiting_for"]) == ("completed", None)


async def test_a_run_whose_changes_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk nothing is acknowledged: what the run waits for is room; then it goes on."""
    store = ModelStoreConfig("OnDisk", 1)
    async with in_process(settings(data_dir=tmp_path), store=store) as controller:
        (anna,) = await begin(controller.http, "anna", **ONE_ROUND)
        with monkeypatch.context() as patched:

            def full(batch: Any) -> None:
                raise DiskFull("no space left")

            patched.setattr(controller.app.state.runtime._folder.database, "write", full)
            task = await anna.task()
            answer = await anna.put(task, document(*weights(1.0)))
            problem(answer, 507, "disk-full")
            told = (await controller.http.get("/v1/federation")).json()["waiting_for"]
            assert re.fullmatch(r".+; held up for \d s: no space left; tries again in \d s", told), told

        async def free() -> bool:
            return "held up" not in str((await controller.http.get("/v1/federation")).json()["waiting_for"])

        await until(free, 10)
        assert (await anna.put(task, document(*weights(1.0)))).status_code == 200


async def test_a_state_file_that_fails_while_it_is_open(tmp_path: Path) -> None:
    """What would change something gets 503, never 500, and reads go on; when the file takes changes again, what was
    refused is written by itself, and a restart knows it."""
    store = ModelStoreConfig("OnDisk", 1)
    async with in_process(settings(data_dir=tmp_path), store=store) as controller:
        http, database = controller.http, controller.app.state.runtime._folder.database
        anna, bert = await begin(http, "anna", "bert", **ONE_ROUND)
        task, body = await anna.task(), document(*weights(1.0))
        run = (await http.get("/v1/runs/latest")).json()["id"]
        database._connection.execute("PRAGMA query_only=1")
        refused = [
            await anna.put(task, body),
            await anna.put(task, body),
            await http.post("/v1/learners", json={"name": "carl"}),
            await http.post("/v1/learners", json={"name": "carl"}),
            await bert.call("DELETE", bert.path),
            await http.post(f"/v1/runs/{run}/stop", json={"reason": "seen enough"}),
            await http.post("/v1/runs", json=ONE_ROUND, headers={"Idempotency-Key": "once"}),
        ]
        for answer in refused:
            told = problem(answer, 503, "store-unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert (told["retryable"], str(tmp_path / "state.sqlite") in told["detail"]) == (True, True)
        for path in ("/healthz", "/v1/federation", "/v1/learners", "/v1/runs/latest/rounds", "/metrics"):
            assert (await http.get(path)).status_code == 200
        model = task["model"]["digest"]
        assert (await http.get(f"/v1/models/{model}")).status_code == 200
        database._connection.execute("PRAGMA query_only=0")

        async def written() -> bool:
            return bool(controller.app.state.runtime.writer.all_written)

        await until(written, 10)
        assert (await anna.put(task, body)).status_code == 200
        again = await http.post("/v1/runs", json=ONE_ROUND, headers={"Idempotency-Key": "once"})
        assert again.status_code == 201
        await join(http, "carl")
        learners = sorted(one["name"] for one in (await http.get("/v1/learners")).json())
        runs = [(one["id"], one["state"]) for one in (await http.get("/v1/runs")).json()]
    async with in_process(settings(data_dir=tmp_path), store=store) as after:
        assert sorted(one["name"] for one in (await after.http.get("/v1/learners")).json()) == learners
        assert [(one["id"], one["state"]) for one in (await after.http.get("/v1/runs")).json()] == runs
        (shown,) = (await after.http.get(f"/v1/runs/{run}/rounds")).json()
        assert shown["completed"] == ["anna"]
    assert learners == ["anna", "carl"]
