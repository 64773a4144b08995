"""A controller that is started again on its folder: what it still knows, what it removed, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller_api.settings import Settings
from services import ModelStoreConfig
from services.messages import TERMINAL
from services.state import NAME, Batch, Database, Ownership
from tests.conftest import InProcess, Process, in_process, serve, until
from tests.controller_api.driving import MSGPACK, Member, begin, digest_of, document, join, model, weights

ON_DISK = ModelStoreConfig("OnDisk", 1)
RUN_GIVEN: dict[str, Any] = {"termination": {"federation_rounds": 3}, "min_learners": 2}
AWAY_S, AHEAD_S, CLOSES_S = 500, 3600, 120


def again(folder: Path) -> Any:
    """A controller on the folder."""
    return in_process(Settings(data_dir=folder, log_level="error"), store=ON_DISK)


async def started(controller: InProcess, **schedule: Any) -> tuple[Member, Member]:
    """A run of three rounds with two learners, from a model that was put before."""
    members = (await join(controller.http, "anna"), await join(controller.http, "bert"))
    body = model(*weights())
    put = await controller.http.put(f"/v1/models/{digest_of(body)}", content=body, headers={"Content-Type": MSGPACK})
    assert put.status_code == 201
    given = {**RUN_GIVEN, "initial_model": digest_of(body), **({"schedule": schedule} if schedule else {})}
    answer = await controller.http.post("/v1/runs", json=given, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 201, answer.text
    return members


def over(member: Member, controller: InProcess) -> Member:
    """The same learner, who calls another process."""
    return Member(controller.http, member.id, member.name, member.token)


async def run_of(http: httpx.AsyncClient) -> dict[str, Any]:
    """The newest run."""
    found: dict[str, Any] = (await http.get("/v1/runs/latest")).json()
    return found


async def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Learners, their tokens, the round, its tasks, what was taken, and the key of the run's start are as before."""
    async with again(tmp_path) as before:
        anna, bert = await started(before)
        task, other = await anna.task(), await bert.task()
        body = document(*weights(1.0))
        assert (await anna.put(task, body)).status_code == 201
        last_event = before.app.state.runtime.events.last_id
        shown = await run_of(before.http)
    async with again(tmp_path) as after:
        anna, bert = over(anna, after), over(bert, after)
        found = await run_of(after.http)
        assert {key: found[key] for key in ("id", "state", "round", "model", "config", "started_at")} == {
            key: shown[key] for key in ("id", "state", "round", "model", "config", "started_at")
        }
        assert (await anna.put(task, body)).status_code == 200
        assert (await bert.task())["id"] == other["id"]
        assert after.app.state.runtime.events.last_id > last_event
        given = {**RUN_GIVEN, "initial_model": shown["model"]}
        repeated = await after.http.post("/v1/runs", json=given, headers={"Idempotency-Key": "once"})
        assert (repeated.status_code, repeated.json()["id"]) == (201, shown["id"])

        await complete(after, anna, bert)


async def complete(controller: InProcess, *members: Member) -> dict[str, Any]:
    """The run, once its members have brought it to its end."""

    async def ended() -> bool:
        await asyncio.gather(*[member.work() for member in members if await open_task(member)])
        return (await run_of(controller.http))["state"] in TERMINAL

    await until(ended, 20)
    run = await run_of(controller.http)
    assert run["state"] == "completed", run["reason"]
    return run


async def open_task(member: Member) -> bool:
    """Whether it has something to do."""
    return (await member.call("GET", f"{member.path}/task")).status_code == 200


async def test_a_copy_of_the_folder_goes_on_from_when_it_was_made(tmp_path: Path) -> None:
    """A backup, or a controller that moves: learners do again what came after it, and the model is the same."""
    async with again(tmp_path / "here") as before:
        members = await started(before)
        for member in members:
            await member.work()
    shutil.copytree(tmp_path / "here", tmp_path / "copy")
    async with again(tmp_path / "here") as after:
        first = await complete(after, *[over(member, after) for member in members])
    async with again(tmp_path / "copy") as restored:
        second = await complete(restored, *[over(member, restored) for member in members])
    assert (first["id"], first["model"], first["round"]) == (second["id"], second["model"], second["round"])


async def test_what_nobody_needs_is_removed(tmp_path: Path) -> None:
    """A document that no row names leaves the store at the start; what is named stays, a model that was put too."""
    async with again(tmp_path) as before:
        anna, _ = await started(before)
        assert (await anna.put(await anna.task(), document(*weights(1.0)))).status_code == 201
        needed = set(before.app.state.runtime.store.keys())
        before.app.state.runtime.store.put("orphan", [b"left by a process that died"])
    (tmp_path / "models" / "half.part").write_bytes(b"half")
    async with again(tmp_path) as after:
        assert set(after.app.state.runtime.store.keys()) == needed
        assert not list((tmp_path / "models").glob("*.part"))


async def test_a_model_that_is_lost_fails_the_run_in_words(tmp_path: Path) -> None:
    """The run that needs it ends with the reason; the controller starts, and takes the next run."""
    async with again(tmp_path) as before:
        await started(before)
        digest = (await run_of(before.http))["model"]
    (tmp_path / "models" / digest).unlink()
    async with again(tmp_path) as after:
        run = await run_of(after.http)
        assert run["state"] == "failed"
        assert "lost what the run needs" in run["reason"]
        assert digest in run["reason"]
        following = await after.http.post("/v1/runs", json={"termination": {"federation_rounds": 1}})
        assert following.status_code == 201


async def test_a_lost_answer_to_an_enrolment_costs_no_name(tmp_path: Path) -> None:
    """The same key again, also after a restart, is the same learner with a new token; another key is refused."""
    headers = {"Idempotency-Key": "a-key-that-nobody-guesses"}
    async with again(tmp_path) as before:
        first = await before.http.post("/v1/learners", json={"name": "anna"}, headers=headers)
        assert first.status_code == 201
    async with again(tmp_path) as after:
        second = await after.http.post("/v1/learners", json={"name": "anna"}, headers=headers)
        assert (second.status_code, second.json()["id"]) == (201, first.json()["id"])
        assert second.json()["token"] != first.json()["token"]
        other = await after.http.post("/v1/learners", json={"name": "anna"}, headers={"Idempotency-Key": "b" * 16})
        assert other.status_code == 409
        member = Member(after.http, second.json()["id"], "anna", second.json()["token"])
        assert (await member.call("GET", f"{member.path}/task")).status_code == 204
        old = Member(after.http, member.id, "anna", first.json()["token"])
        assert (await old.call("GET", f"{old.path}/task")).status_code == 401


# ---- time
def age(folder: Path, seconds: float) -> None:
    """All that happened in the folder was so much earlier: the zero of its clock, and when its owner was alive last."""
    with closing(Database(folder / NAME)) as database:
        (clock,) = (row for row in database.rows() if (row.kind, row.key) == ("meta", "clock"))
        known = json.loads(clock.data or b"")
        moved = json.dumps({**known, "epoch": known["epoch"] - seconds}).encode()
        database.write(Batch([clock._replace(data=moved)], []))
    alive_at = (folder / "lock").stat().st_mtime - seconds
    os.utime(folder / "lock", (alive_at, alive_at))


async def closes_in(controller: InProcess, member: Member) -> float:
    """Seconds until the round closes, which is also when the member's task expires."""
    said = (await run_of(controller.http))["waiting_for"]
    found = re.search(r"round closes in (\d+) s", said)
    assert found, said
    assert abs(int(found[1]) - (await member.task())["expires_in_s"]) < 3
    return float(found[1])


async def test_the_time_away_counts_for_nobody(tmp_path: Path) -> None:
    """Down for longer than a round may last and a lease goes on: nobody is lost, and as much time is left as before."""
    async with again(tmp_path) as before:
        anna, bert = await started(before, round_deadline_s=CLOSES_S)
        await anna.work()
        left = await closes_in(before, bert)
    age(tmp_path, AWAY_S)
    async with again(tmp_path) as after:
        anna, bert = over(anna, after), over(bert, after)
        learners = (await after.http.get("/v1/learners")).json()
        assert [one["state"] for one in learners] == ["active"] * 2
        assert all(0 <= one["last_seen_s"] < 10 for one in learners)
        assert left - 10 < await closes_in(after, bert) <= left + 5  # the last sign of life was before that look
        assert (await run_of(after.http))["round"] == 1
        await complete(after, anna, bert)


@pytest.mark.parametrize("restarts", [1, 2])
async def test_a_clock_that_was_set_back_does_not_run_back(tmp_path: Path, restarts: int) -> None:
    """A process ran when the system's clock was an hour ahead: what it did is not in the future, and nothing that is
    waited for takes an hour longer."""
    async with again(tmp_path) as before:
        anna, bert = await started(before, round_deadline_s=CLOSES_S)
        await anna.work()
        left = await closes_in(before, bert)
        newest = before.app.state.runtime.now
        before.app.state.runtime._folder.ownership.touch()
    age(tmp_path, -AHEAD_S)
    for _ in range(restarts - 1):
        async with again(tmp_path) as between:
            ownership = between.app.state.runtime._folder.ownership

            async def signed(ownership: Ownership = ownership) -> bool:
                return (tmp_path / "lock").stat().st_mtime != ownership.alive_at()

            await until(signed, 10)
    async with again(tmp_path) as after:
        anna, bert = over(anna, after), over(bert, after)
        assert newest - 0.1 < after.app.state.runtime.now < newest + 10
        learners = (await after.http.get("/v1/learners")).json()
        assert all(0 <= one["last_seen_s"] < 10 for one in learners)
        assert left - 10 < await closes_in(after, bert) <= left
        run = await complete(after, anna, bert)
        assert run["started_at"] < run["ended_at"]
        rounds = (await after.http.get("/v1/runs/latest/rounds")).json()
        times = [time for one in rounds for time in (one["started_at"], one["completed_at"])]
        assert times == sorted(times)


# ---- what others may find there, and put there
def test_a_lock_that_is_a_link_stops_the_command(start: Callable[..., Process], tmp_path: Path) -> None:
    """Status 2 and a sentence; what the link leads to is not written over, nor is anything made beside it."""
    (tmp_path / "dear").write_text("what stood there")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").symlink_to(tmp_path / "dear")
    process = start("refused", "-m", "controller_api", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert process.wait(30) == 2
    (said,) = process.tail().splitlines()
    assert said.startswith("metis-controller: cannot keep state in the folder ")
    assert said.endswith("lock is a link, which is not followed: put the file itself there")
    assert (tmp_path / "dear").read_text() == "what stood there"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["lock"]


async def test_state_and_models_are_their_users_alone(start: Callable[..., Process], tmp_path: Path) -> None:
    """Whatever the umask of who starts the controller is, in a folder that is open to all."""
    folder = tmp_path / "controller"
    folder.mkdir()
    folder.chmod(0o777)
    before = os.umask(0)
    try:
        served = await asyncio.to_thread(serve, start, tmp_path)
    finally:
        os.umask(before)
    async with httpx.AsyncClient(base_url=served.url, timeout=20) as http:
        (anna,) = await begin(http, "anna")
        await anna.work()
        found = {path.relative_to(folder): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert {str(path) for path in found} >= {"lock", "state.sqlite", "state.sqlite-wal", "models"}
    assert len(found) > 5
    assert {path: mode for path, mode in found.items() if mode not in (0o600, 0o700)} == {}
