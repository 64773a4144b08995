"""What a learner with a valid token may make grow: each thing has a bound, and pushes nothing of others out."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from controller_api.http.gate import FAILURE_BYTES, HEARTBEAT_BYTES, JOIN_BYTES, SCORES_BYTES
from controller_api.runtime import runtime as runtime_module
from controller_api.runtime.events import FLEETING, KEPT, OFTEN_KEPT
from controller_api.runtime.metrics import SCORES
from controller_api.settings import Settings
from services import ModelStoreConfig
from services.federation import run
from services.messages import Heartbeat, JoinRequest
from services.state import Batch
from services.state.database import Database
from services.weights import allocate, buffers
from services.weights.wire import MAX_TOLD_BYTES
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import begin, document, join, problem, settings, weights

JSON = {"Content-Type": "application/json"}


async def test_heartbeats_push_no_event_out(controller: InProcess) -> None:
    """10,500 of them, as many as an attacker sends in seconds: the run's other events are all there, in order."""
    (anna,) = await begin(controller.http, "anna")
    task, log = await anna.task(), controller.app.state.runtime.events
    before = log.after(0)
    for epoch in range(10_500):
        beat = {"task_id": task["id"], "progress": {"epoch": epoch}}
        controller.app.state.runtime.heartbeat(anna.id, Heartbeat.model_validate(beat))
    await anna.work()
    events = log.after(0)
    assert events[: len(before)] == before
    assert [one.id for one in events] == sorted({one.id for one in events})
    told = [one.data["epoch"] for one in events if one.kind == "task-progress"]
    assert told == list(range(10_500 - OFTEN_KEPT[FLEETING], 10_500))
    assert events[-1].id == log.last_id
    assert log.after(log.last_id - 1) == events[-1:]


async def test_comings_and_goings_push_no_event_out(controller: InProcess) -> None:
    """Joining and leaving without end: what happened in the run is all there, and the newest of the others."""
    await begin(controller.http, "anna")
    runtime = controller.app.state.runtime
    before = [one.id for one in runtime.events.after(0) if one.kind not in OFTEN_KEPT]
    for number in range(KEPT):
        now = runtime.now
        member = runtime._changed(lambda: runtime.federation.join(JoinRequest(), b"%d" % number, now))  # noqa: B023
        runtime._changed(lambda: runtime.federation.leave(member.id, now))  # noqa: B023
    kinds = Counter(one.kind for one in runtime.events.after(0))
    assert [one.id for one in runtime.events.after(0) if one.kind not in OFTEN_KEPT] == before
    assert (kinds["learner-joined"], kinds["learner-left"]) == (OFTEN_KEPT["learner-joined"],) * 2


async def test_learners_enrol_at_a_rate() -> None:
    """429 with Retry-After beyond it; the same call again, whose answer was lost, is not another learner."""
    async with in_process(settings(join_burst=3, join_rate=0.001)) as here:
        for number in range(3):
            await join(here.http, f"learner-{number}")
        key = {"Idempotency-Key": "a key that nobody guesses"}
        told = await here.http.post("/v1/learners", json={}, headers=key)
        assert "after 3 it takes 0.001 a second" in problem(told, 429, "busy")["detail"]
        assert int(told.headers["retry-after"]) > 0
        assert len((await here.http.get("/v1/learners")).json()) == 3
    async with in_process(settings(join_burst=1, join_rate=0.001)) as here:
        first, again = [await here.http.post("/v1/learners", json={}, headers=key) for _ in range(2)]
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json()["id"] == again.json()["id"]
    async with in_process(settings(join_burst=1, join_rate=20.0)) as here:
        for number in range(3):
            answer = await here.http.post("/v1/learners", json={"name": f"late-{number}"})
            while answer.status_code == 429:
                await asyncio.sleep(0.02)
                answer = await here.http.post("/v1/learners", json={"name": f"late-{number}"})
            assert answer.status_code == 201


async def test_who_comes_and_goes_makes_a_run_no_larger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The newest that left are in its results, also after a restart; each is written down once."""
    monkeypatch.setattr(run, "MAX_DEPARTED", 10)
    where = Settings(model_store="OnDisk", data_dir=tmp_path, log_level="error")
    store = ModelStoreConfig("OnDisk", 1)
    written: list[int] = []
    write = Database.write

    def counted(database: Database, batch: Batch) -> None:
        written.append(sum(one.kind == "participant" for one in batch.rows))
        write(database, batch)

    monkeypatch.setattr(Database, "write", counted)
    async with in_process(where, store=store) as here:
        await begin(here.http, "anna")
        for number in range(30):
            member = await join(here.http, f"guest-{number:02}", labels={"site": "x" * 100})
            assert (await member.call("DELETE", member.path)).status_code == 204
        found = (await here.http.get("/v1/runs/current/results")).json()["learners"]
        assert [one["name"] for one in found] == ["anna", *(f"guest-{number}" for number in range(20, 30))]
    assert sum(written) == 30 + 20  # each once, and once more when it is forgotten
    async with in_process(where, store=store) as here:
        assert (await here.http.get("/v1/runs/current/results")).json()["learners"][1:] == found[1:]


async def test_names_of_metrics_make_no_series_for_ever(controller: InProcess) -> None:
    """A thousand new names in each of two rounds: those of the newest are shown, and no more than the limit."""
    (anna,) = await begin(controller.http, "anna", termination={"federation_rounds": 2})
    for number in range(2):
        await anna.work()
        scores = {f"round-{number}-{i:03}": 1.0 for i in range(1000)}
        assert (await anna.score(await anna.task(), **scores)).status_code == 201
    page = (await controller.http.get("/metrics")).text
    shown = [line for line in page.splitlines() if line.startswith("metis_evaluation{")]
    assert len(shown) == SCORES
    assert all("round-1-" in line for line in shown)


@pytest.mark.parametrize(
    ("what", "limit"),
    [("learners", JOIN_BYTES), ("heartbeat", HEARTBEAT_BYTES), ("failure", FAILURE_BYTES), ("result", SCORES_BYTES)],
)
@pytest.mark.parametrize("chunked", [True, False])
async def test_json_is_no_longer_than_what_belongs_there(
    controller: InProcess, what: str, limit: int, chunked: bool
) -> None:
    """413 that names the limit, whether the length was said or not, and before any of it is looked at."""
    (anna,) = await begin(controller.http, "anna", advance="manual")
    await controller.http.post("/v1/runs/current/rounds")
    await anna.work()
    task = await anna.task()
    method, path = {
        "learners": ("POST", "/v1/learners"),
        "heartbeat": ("POST", f"{anna.path}/heartbeat"),
        "failure": ("POST", f"/v1/tasks/{task['id']}/failure"),
        "result": ("PUT", f"/v1/tasks/{task['id']}/result"),
    }[what]
    body = b" " * (limit - 1) + b"{}"

    async def parts() -> Any:
        yield body

    told = problem(await anna.call(method, path, content=parts() if chunked else body, headers=JSON), 413, "too-large")
    assert told["limit"] == limit
    assert (await anna.call(method, path, content=body[1:], headers=JSON)).status_code != 413


async def test_what_an_update_tells_is_bounded(controller: InProcess) -> None:
    """A hundred texts of 9,000 characters would be kept with the run: 422; what fits is taken."""
    (anna,) = await begin(controller.http, "anna")
    task = await anna.task()
    much = {f"key-{i}": "x" * 9000 for i in range(100)}
    body = document(*weights(1.0), metadata=much)
    assert (
        "metadata has more than 65536 bytes" in problem(await anna.put(task, body), 422, "malformed-update")["detail"]
    )
    numbers = {f"metric-{i:03}": 0.5 for i in range(1000)}
    fits = {"num_training_examples": 10, "note": "x" * 9000}
    assert len(json.dumps(numbers)) < MAX_TOLD_BYTES
    assert (await anna.put(task, document(*weights(1.0), metrics=numbers, metadata=fits))).status_code == 201


async def test_buffers_of_uploads_go_when_nobody_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the largest that were ever sent would be held for ever, whatever the models are now."""
    monkeypatch.setattr(runtime_module, "IDLE_S", 0.2)
    async with in_process():
        held = [allocate(5_000_000 + number * 2_000_000) for number in range(3)]
        assert len({len(one) for one in held}) == 3
        held.clear()
        assert buffers._idle

        async def gone() -> bool:
            return not buffers._idle

        await until(gone, 10)
