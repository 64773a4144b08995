"""A full or read-only disk: what cannot be kept is refused, reads go on, and the run goes on by itself afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from controller_api.durability import store_calls
from controller_api.runtime import runtime as runtime_module
from controller_api.settings import Settings
from services import ModelStoreConfig
from services.engine import aggregate
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import Member, arrays_of, digest_of, document, join, model, problem, seen
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.federation import IN_FULL

SMALL, LARGE = 9, 300_000  # values of a model: the second is read by another path, and written in place
ROUNDS = 3
HELD_S = 0.3  # how long the disk is full
POINTS = ("before an upload", "when an update is stored", "before an aggregation", "when a new model is stored")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Of 24 MiB."""
    with small_disk(tmp_path / "disk", 24) as made:
        yield made


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "FULL_PAUSE_S", 0.1)


@asynccontextmanager
async def on(disk: SmallDisk) -> AsyncIterator[InProcess]:
    """A controller that keeps everything on the disk."""
    settings = Settings(data_dir=disk.folder / "data", log_level="error")
    async with in_process(settings, store=ModelStoreConfig("OnDisk", 1)) as controller:
        yield controller


async def begin(http: httpx.AsyncClient, size: int, rounds: int = 1) -> list[Member]:
    """Anna and Bert in a run whose model 0, of `size` values, is there."""
    body = model(np.zeros(size, "<f4"))
    assert (await put_model(http, body)).status_code == 201
    members = [await join(http, name) for name in ("anna", "bert")]
    run = {"min_learners": 2, "termination": {"federation_rounds": rounds}, "initial_model": digest_of(body)}
    assert (await http.post("/v1/runs", json=run)).status_code == 201
    return members


async def put_model(http: httpx.AsyncClient, body: bytes) -> httpx.Response:
    """Send a model as an operator."""
    path = f"/v1/models/{digest_of(body)}"
    return await http.put(path, content=body, headers={"Content-Type": "application/vnd.msgpack"})


def update(value: float, size: int) -> bytes:
    """An update full of one value."""
    return document(np.full(size, value, "<f4"))


def refused(answer: httpx.Response, status: int = 507, name: str = "disk-full") -> None:
    """It says what is wrong, that it may be repeated, and when."""
    assert problem(answer, status, name)["retryable"]
    assert int(answer.headers["Retry-After"]) > 0


async def patiently(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The first answer that is not that of a full disk."""
    async with asyncio.timeout(20):
        while (answer := await call()).status_code == 507:
            refused(answer)
            await asyncio.sleep(0.02)
    return answer


async def work(member: Member, value: float, size: int) -> None:
    """Do the next task, sending again what was refused."""
    answer = await patiently(lambda: member.call("GET", f"{member.path}/task", params={"wait": 10}))
    assert answer.status_code == 200, answer.text
    task = answer.json()
    if task["kind"] == "evaluate":
        answer = await patiently(lambda: member.score(task, accuracy=0.5))
    else:
        answer = await patiently(lambda: member.put(task, update(value, size)))
    assert answer.status_code in (200, 201), answer.text


async def test_what_cannot_be_kept_is_refused(disk: SmallDisk) -> None:
    """507 for an update and for a model, and nothing is taken; what is there is read; with room the same calls succeed,
    and count once."""
    async with on(disk) as controller:
        http = controller.http
        anna, bert = await begin(http, LARGE)
        task = await anna.task()
        before, other = await seen(http), model(np.ones(LARGE, "<f4"))
        disk.fill()
        for _ in range(3):
            refused(await anna.put(task, update(1.0, LARGE)))
            refused(await put_model(http, other))
            assert await seen(http) == before
            assert (await http.get("/healthz")).status_code == 200
            assert (await anna.call("POST", f"{anna.path}/heartbeat", json={})).status_code == 204
        given = await anna.call("GET", f"/v1/models/{task['model']['digest']}")
        assert arrays_of(given.content) == [[0.0] * LARGE]
        left = [path.name for path in (disk.folder / "data" / "models").iterdir() if path.name.endswith(".part")]
        assert left == []
        disk.free()
        assert [(await anna.put(task, update(1.0, LARGE))).status_code for _ in range(2)] == [201, 200]
        assert (await put_model(http, other)).status_code == 201
        await work(bert, 3.0, LARGE)
        for one in (anna, bert):
            await work(one, 0.0, LARGE)
        await completed(controller, 2.0, LARGE, rounds=1)


async def test_room_that_is_held_to_be_quick_is_given_back(disk: SmallDisk) -> None:
    """A full disk that holds files to be written over is not full for the controller's state."""
    async with on(disk) as controller:
        store = controller.app.state.runtime.store
        store.put("old", [bytes(4 << 20)])
        store.drop("old")
        assert list(store.folder.glob("*.spare"))
        disk.fill()
        await join(controller.http, "anna")
        assert not list(store.folder.glob("*.spare"))


async def test_who_was_refused_is_not_in_its_own_way(disk: SmallDisk) -> None:
    """A learner that could not be written down is none: its name is free when it asks again."""
    async with on(disk) as controller:
        await join(controller.http, "anna")
        disk.fill()
        for _ in range(3):
            refused(await controller.http.post("/v1/learners", json={"name": "bert"}))
        disk.free()
        bert = await patiently(lambda: controller.http.post("/v1/learners", json={"name": "bert"}))
        assert bert.status_code == 201, bert.text
        learners = (await controller.http.get("/v1/learners")).json()
        assert sorted(one["name"] for one in learners if one["state"] == "active") == ["anna", "bert"]


@pytest.mark.parametrize("key", [None, "once"])
async def test_a_run_whose_start_was_refused_is_in_nobodys_way(disk: SmallDisk, key: str | None) -> None:
    """The same call starts it when there is room: without a key anew, with one as the one that waited to be written."""
    headers = {"Idempotency-Key": key} if key else {}
    run = {"min_learners": 2, "termination": {"federation_rounds": 1}}
    async with on(disk) as controller:
        await join(controller.http, "anna")
        disk.fill()
        for _ in range(3):
            refused(await controller.http.post("/v1/runs", json=run, headers=headers))
        disk.free()
        answer = await patiently(lambda: controller.http.post("/v1/runs", json=run, headers=headers))
        assert answer.status_code == 201, answer.text
        runs = (await controller.http.get("/v1/runs")).json()
        assert [one["id"] for one in runs if one["state"] == "waiting"] == [answer.json()["id"]]
        assert {one["state"] for one in runs} <= {"waiting", "stopped"}


@pytest.mark.parametrize("size", [SMALL, LARGE] if IN_FULL else [LARGE])
@pytest.mark.parametrize("point", POINTS)
async def test_a_run_goes_on_when_there_is_room_again(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, point: str, size: int
) -> None:
    """Full for a while in the midst of each round: the run waits, completes with the right means, and is there after a
    restart."""
    async with on(disk) as controller:
        anna, bert = await begin(controller.http, size, ROUNDS)
        filled_at = fill_at(point, disk, controller, monkeypatch)
        outages = asyncio.create_task(freed_each_time(disk, controller))
        for number in range(1, ROUNDS + 1):
            for member, value in ((anna, 1.0), (bert, 3.0)):
                await work(member, value * number, size)
            for one in (anna, bert):
                await work(one, 0.0, size)
        await completed(controller, 2.0 * ROUNDS, size)
        outages.cancel()
        assert filled_at == [point] * ROUNDS
    async with on(disk) as controller:
        await completed(controller, 2.0 * ROUNDS, size)


async def test_ended_while_it_waits_for_room(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that is ended meanwhile has not failed its run: the next one makes the model when there is room."""
    async with on(disk) as controller:
        anna, bert = await begin(controller.http, LARGE)
        tried = asyncio.Event()

        def hindered(*arguments: Any) -> Any:
            if not disk.full:
                disk.fill(leave=400_000)  # too little for a model, enough for a note of how the run ended
            tried.set()
            return aggregate(*arguments)

        monkeypatch.setattr(runtime_module, "aggregate", hindered)
        for member, value in ((anna, 1.0), (bert, 3.0)):
            await work(member, value, LARGE)
        async with asyncio.timeout(10):
            await tried.wait()
    monkeypatch.undo()
    disk.free()
    async with on(disk) as controller:
        for member in (anna, bert):
            member.http = controller.http
            await work(member, 0.0, LARGE)
        await completed(controller, 2.0, LARGE, rounds=1)


def fill_at(point: str, disk: SmallDisk, controller: InProcess, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fill the disk at this point of each round, once; returns the list in which that is noted."""
    noted: list[str] = []
    store = controller.app.state.runtime.store
    put, stored = store.put, list[str]()

    def note() -> None:
        noted.append(point)
        disk.fill()

    def watched_put(key: str, parts: Any) -> None:
        if point == POINTS[0] and len(stored) == 2 * len(noted):
            note()
        put(key, parts)
        stored.append(key)
        if point == POINTS[1] and len(stored) == 2 * len(noted) + 1:
            note()

    jobs: set[int] = set()

    def watched_aggregate(job: Any, *more: Any) -> Any:
        first = job.round not in jobs
        jobs.add(job.round)
        if point == POINTS[2] and first:
            note()
        made = aggregate(job, *more)
        if point == POINTS[3]:
            note()
        return made

    monkeypatch.setattr(store, "put", watched_put)
    monkeypatch.setattr(runtime_module, "aggregate", watched_aggregate)
    return noted


async def freed_each_time(disk: SmallDisk, controller: InProcess) -> None:
    """Whenever the disk is full: leave it so for a while, in which it takes nothing and reads go on; then free it."""
    body = model(np.zeros(50_000, "<f4"))

    async def is_full() -> bool:
        return disk.full

    while True:
        await until(is_full, 60)
        for _ in range(3):
            await asyncio.sleep(HELD_S / 3)
            disk.top_up()
            refused(await put_model(controller.http, body))
            run = (await controller.http.get("/v1/runs/latest")).json()
            assert run["state"] not in ("failed", "stopped"), run
            assert (await controller.http.get("/v1/runs/latest/model")).status_code == 200
        disk.free()


async def completed(controller: InProcess, value: float, size: int, rounds: int = ROUNDS) -> None:
    """The run is over, everybody is in every round once, and the last model is the mean of its updates."""
    run = (await patiently(lambda: controller.http.get("/v1/runs/latest"))).json()
    assert run["state"] == "completed", run
    shown = (await controller.http.get("/v1/runs/latest/rounds")).json()
    assert [sorted(one["completed"]) for one in shown] == [["anna", "bert"]] * rounds
    assert arrays_of((await controller.http.get("/v1/runs/latest/model")).content) == [[value] * size]


async def test_a_read_only_folder_is_told(disk: SmallDisk) -> None:
    """503, and nothing is taken; models are read; when it can be written the same call succeeds."""
    async with on(disk) as controller:
        anna, bert = await begin(controller.http, SMALL)
        task = await anna.task()
        before = await seen(controller.http)
        disk.freeze(disk.folder / "data" / "models")
        refused(await anna.put(task, update(1.0, SMALL)), 503, "store-unavailable")
        refused(await put_model(controller.http, model(np.ones(3, "<f4"))), 503, "store-unavailable")
        assert await seen(controller.http) == before
        assert (await anna.call("GET", f"/v1/models/{task['model']['digest']}")).status_code == 200
        disk.thaw()
        assert (await anna.put(task, update(1.0, SMALL))).status_code == 201
        await work(bert, 3.0, SMALL)
        for one in (anna, bert):
            await work(one, 0.0, SMALL)
        await completed(controller, 2.0, SMALL, rounds=1)
