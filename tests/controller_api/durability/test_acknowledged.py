"""What was answered with success is on the disk: also when it was asked for a second time, and whatever the store does
meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller_api import app as app_module
from controller_api.durability import store_calls
from controller_api.durability import writer as keeping
from controller_api.settings import Settings
from learner_agent.agent import Agent, LearnerAtWork, poll
from services import ModelStoreConfig
from services import messages as m
from services.errors import DiskFull, StoreUnavailable
from services.state import Batch
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import MSGPACK, Member, digest_of, document, join, model, weights
from tests.learner_agent.agents import AddsOne

ROUNDS = {"termination": {"federation_rounds": 3}}


def again(folder: Path, lineage_length: int = 1) -> Any:
    """A controller on the folder."""
    settings = Settings(data_dir=folder, log_level="error")
    return in_process(settings, store=ModelStoreConfig("OnDisk", lineage_length))


async def begin(controller: InProcess, *names: str, size: int = 0, **given: Any) -> list[Member]:
    """These learners in a run from a model that was put before, of the tests' form or of so many values."""
    body = model(*([np.zeros(size, "<f4")] if size else weights()))
    put = await controller.http.put(f"/v1/models/{digest_of(body)}", content=body, headers={"Content-Type": MSGPACK})
    assert put.status_code in (200, 201)
    members = [await join(controller.http, name) for name in names]
    run = {**ROUNDS, "min_learners": len(names), "initial_model": digest_of(body), **given}
    answer = await controller.http.post("/v1/runs", json=run)
    assert answer.status_code == 201, answer.text
    return members


@contextmanager
def unwritable(controller: InProcess) -> Iterator[None]:
    """The state cannot be written meanwhile."""
    database = controller.app.state.runtime._folder.database

    def full(batch: Batch) -> None:
        raise DiskFull("no space left")

    write, database.write = database.write, full
    try:
        yield
    finally:
        database.write = write


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PAUSE_S", 0.1)
    monkeypatch.setattr(store_calls, "PAUSES", (0.05,) * 7)


# ---- while the state cannot be written
async def test_nothing_is_acknowledged_by_being_asked_again(tmp_path: Path) -> None:
    """A repeated call finds what it did before in memory: it is told so when that is written."""
    async with again(tmp_path) as controller:
        anna, bert = await begin(controller, "anna", "bert")
        task, http = await anna.task(), controller.http
        body, other = document(*weights(1.0)), model(*weights(7.0))
        result = f"/v1/tasks/{task['id']}/result"
        end = {
            "Upload-Offset": str(len(body)),
            "Upload-Complete": "?1",
            "Content-Type": "application/partial-upload",
        }
        put = {"content": other, "headers": {"Content-Type": MSGPACK}}

        async def statuses() -> list[int]:
            return [
                (await anna.put(task, body)).status_code,
                (await anna.call("HEAD", result)).status_code,
                (await anna.call("PATCH", result, headers=end, content=b"")).status_code,
                (await http.put(f"/v1/models/{digest_of(other)}", **put)).status_code,
                (await http.delete(bert.path)).status_code,
                (await http.post("/v1/shutdown")).status_code,
            ]

        with unwritable(controller):
            for _ in range(2):
                assert await statuses() == [507] * 6
        await asyncio.sleep(2 * keeping.PAUSE_S)
        assert (await http.delete(bert.path)).status_code == 204
        assert (await http.post("/v1/shutdown")).status_code == 202


@pytest.mark.slow
async def test_the_client_keeps_a_result_that_was_not_acknowledged(tmp_path: Path) -> None:
    """A large one, after whose failure it asks how much is there: it is taken when it is written, and not before."""
    async with again(tmp_path) as controller:
        anna, _ = await begin(controller, "anna", "bert", size=500_000)
        client = controller.client(anna.token)
        client.patience_s = 1.0
        task = await client.next_task(anna.id, 5)
        assert task is not None
        body = document(np.ones(500_000, "<f4"))
        with unwritable(controller), pytest.raises(DiskFull):
            await client.submit(task, [body])
        client.patience_s = 20.0
        assert (await client.submit(task, [body])).task_id == task.id
        await client.close()


async def test_what_is_to_be_erased_is_when_there_is_room_again(tmp_path: Path) -> None:
    """A learner left while the disk was full: nobody has to ask again."""
    async with again(tmp_path) as controller:
        anna, _ = await begin(controller, "anna", "bert")
        assert (await anna.put(await anna.task(), document(*weights(1.0)))).status_code == 201
        assert (await controller.http.post("/v1/runs/current/stop")).status_code == 202
        store = controller.app.state.runtime.store
        assert store.lineage(anna.id)
        with unwritable(controller):
            assert (await anna.call("DELETE", anna.path)).status_code == 507

        async def erased() -> bool:
            keys = store.keys()
            return not store.lineage(anna.id) and all(key.startswith("sha256-") for key in keys)

        await until(erased)


# ---- starts
async def test_a_start_that_fails_does_not_count_as_being_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model store is away too: the time until a start succeeds counts for nobody."""
    async with again(tmp_path) as controller:
        await begin(controller, "anna")
    before = (tmp_path / "lock").stat().st_mtime

    def away(*_: object) -> None:
        raise StoreUnavailable("Redis does not answer")

    await asyncio.sleep(0.05)
    monkeypatch.setattr(app_module, "open_store", away)
    with pytest.raises(StoreUnavailable):
        await again(tmp_path).__aenter__()
    assert (tmp_path / "lock").stat().st_mtime == pytest.approx(before, abs=0.001)


async def test_an_ended_run_that_could_not_be_started_now_is_remembered(tmp_path: Path) -> None:
    """Fewer updates of a learner are kept than its rule would need: it makes no more models."""
    asynchronous: dict[str, Any] = {"scheduler": "Asynchronous", "aggregation_rule": "FedRec"}
    async with again(tmp_path, 2) as controller:
        await begin(controller, "anna", **asynchronous)
        assert (await controller.http.post("/v1/runs/current/stop")).status_code == 202
    async with again(tmp_path, 1) as controller:
        assert (await controller.http.get("/v1/runs/latest")).json()["state"] == "stopped"


# ---- a store that loses, hangs or is slow
async def test_a_run_ends_when_the_store_lost_its_model(tmp_path: Path) -> None:
    """Agents do not ask for it again and again, and the reason is told."""
    async with again(tmp_path) as controller:
        await begin(controller, size=8, min_learners=2)
        for path in (tmp_path / "models").iterdir():
            path.unlink()
        federation, asked = controller.app.state.runtime.federation, list[str]()
        next_task = federation.next_task

        def counted(key: str, now: float) -> Any:
            asked.append(key)
            return next_task(key, now)

        federation.next_task = counted
        agents = [
            asyncio.create_task(
                Agent(LearnerAtWork(AddsOne()), controller.client(), poll, m.JoinRequest(name=name)).run()
            )
            for name in ("anna", "bert")
        ]

        async def ended() -> Any:
            run = (await controller.http.get("/v1/runs/latest")).json()
            return run if run["state"] == "failed" else None

        run = await until(ended)
        assert "the model store lost what the run needs: there is no model sha256-" in run["reason"]
        assert len(asked) < 20
        for agent in agents:
            agent.cancel()
        await asyncio.wait(agents)


async def test_a_store_that_hangs_does_not_keep_others_from_being_written(tmp_path: Path) -> None:
    """More uploads than there are threads wait for it; what needs no store is done at once. Nothing of what was refused
    stays."""
    names = [f"learner-{number}" for number in range(40)]
    async with again(tmp_path) as controller:
        members = await begin(controller, *names)
        tasks = [await member.task() for member in members]
        store, held = controller.app.state.runtime.store, len(list((tmp_path / "models").iterdir()))
        put = store.put

        def hangs(key: str, parts: Any) -> None:
            put(key, parts)
            time.sleep(0.4)
            raise StoreUnavailable("Redis does not answer")

        store.put = hangs
        body = document(*weights(1.0))
        uploads = [asyncio.create_task(member.put(task, body)) for member, task in zip(members, tasks, strict=True)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await join(controller.http, "new")
        assert time.monotonic() - began < 0.3
        assert {(await upload).status_code for upload in uploads} == {503}
        store.put = put

        async def gone() -> bool:
            return len(list((tmp_path / "models").iterdir())) == held

        await until(gone)


async def test_what_a_run_needs_is_not_dropped_for_the_run_before(tmp_path: Path) -> None:
    """Two SCAFFOLD runs from one model begin with the same zeros: dropped after the first, stored for the second."""
    async with again(tmp_path) as controller:
        store = controller.app.state.runtime.store
        drop = store.drop

        def slowly(key: str) -> None:
            time.sleep(0.02)
            drop(key)

        store.drop = slowly
        (anna,) = await begin(controller, "anna", algorithm="SCAFFOLD")
        await anna.task()
        for pause in (0.0, 0.01, 0.02, 0.03):
            assert (await controller.http.post("/v1/runs/current/stop")).status_code == 202
            await asyncio.sleep(pause)
            await begin(controller, algorithm="SCAFFOLD", min_learners=1)
            digest = (await anna.task())["inputs"]["control"]["digest"]
            await asyncio.sleep(0.1)
            assert (await anna.call("GET", f"/v1/models/{digest}")).status_code == 200
