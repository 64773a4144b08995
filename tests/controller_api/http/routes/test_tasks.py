"""Tasks: the long poll, heartbeats, failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller_api.http.routes import tasks as hot
from services.failures import TRACEBACK
from tests.conftest import InProcess, until
from tests.controller_api.driving import Member, begin, join, problem

# Of two both train, the first one counts.
PARTLY: dict[str, Any] = {"selection": {"participation_ratio": 0.5, "over_selection": 1.0}}


async def waiting(member: Member) -> asyncio.Task[Any]:
    """A poll of a minute that is under way: the learner counts as here."""
    poll = asyncio.create_task(member.call("GET", f"{member.path}/task", params={"wait": 60}))
    await asyncio.sleep(0)
    return poll


async def beat(member: Member, **body: Any) -> Any:
    """A heartbeat."""
    return await member.call("POST", f"{member.path}/heartbeat", json=body)


async def fail(member: Member, task: dict[str, Any], error: str = "no memory", **more: Any) -> Any:
    """Report that a task could not be done."""
    return await member.call("POST", f"/v1/tasks/{task['id']}/failure", json={"error": error, **more})


async def test_without_a_task_the_answer_is_204(controller: InProcess) -> None:
    """No wait, no task: an empty 204."""
    anna = await join(controller.http, "anna")
    answer = await anna.call("GET", f"{anna.path}/task")
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_waiting_poll_is_answered_by_what_makes_the_task(controller: InProcess) -> None:
    """The poll of a minute ends with the run that is posted, long before its time."""
    anna = await join(controller.http, "anna")
    poll = await waiting(anna)
    done, _ = await asyncio.wait([poll], timeout=0.2)
    assert not done
    await controller.http.post("/v1/runs", json={"termination": {"federation_rounds": 1}})
    answer = await asyncio.wait_for(poll, 2)
    assert (answer.status_code, answer.json()["kind"]) == (200, "init")


async def test_every_poll_of_a_learner_is_answered(controller: InProcess) -> None:
    """A retried poll beside one that still waits: both get the task."""
    anna = await join(controller.http, "anna")
    polls = [await waiting(anna) for _ in range(3)]
    await controller.http.post("/v1/runs", json={"termination": {"federation_rounds": 1}})
    answers = await asyncio.wait_for(asyncio.gather(*polls), 2)
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_task_is_offered_until_it_is_done(controller: InProcess) -> None:
    """A lost answer loses nothing: the same id again, and another one once the result is in."""
    anna, ben = await begin(controller.http, "anna", "ben")
    first = await anna.task()
    assert (await anna.task())["id"] == first["id"]
    assert (await anna.work())["id"] == first["id"]
    assert (await anna.call("GET", f"{anna.path}/task")).status_code == 204
    await ben.work()
    assert (await anna.task())["kind"] == "evaluate"


async def test_a_task_names_its_model_and_where_its_result_goes(controller: InProcess) -> None:
    """References resolved against the request; the run's parameters as they were written; relative times."""
    (anna,) = await begin(
        controller.http,
        "anna",
        train={"learning_rate": 0.05, "layers": [1, 2]},
        schedule={"round_deadline_s": 50, "lease_s": 30},
    )
    answer = await anna.call("GET", f"{anna.path}/task")
    task = answer.json()
    run = (await controller.http.get("/v1/runs/current")).json()
    assert list(task) == [
        *("id", "kind", "run_id", "round", "model", "inputs", "result", "config", "encoding"),
        *("expires_in_s", "heartbeat_s"),
    ]
    assert (task["kind"], task["run_id"], task["round"], task["inputs"]) == ("train", run["id"], 1, {})
    assert task["encoding"] is None  # the run asks for none, and this learner can do none
    assert task["config"] == {"learning_rate": 0.05, "layers": [1, 2], "round": 1, "seed": task["config"]["seed"]}
    assert task["heartbeat_s"] == 10  # a third of the lease
    assert 40 < task["expires_in_s"] <= 50
    held = await anna.call("GET", str(answer.url.join(task["model"]["url"])))
    assert (held.status_code, len(held.content)) == (200, task["model"]["size"])
    assert task["model"]["digest"] == run["model"]
    assert str(answer.url.join(task["result"]["url"])).endswith(f"/v1/tasks/{task['id']}/result")


async def test_an_init_task_has_no_model(controller: InProcess) -> None:
    """`model` is null: the learner sends its own weights."""
    anna = await join(controller.http, "anna")
    await controller.http.post("/v1/runs", json={"termination": {"federation_rounds": 1}, "train": {"epochs": 2}})
    task = await anna.task()
    assert (task["kind"], task["model"], task["round"], task["config"]["epochs"]) == ("init", None, 0, 2)


@pytest.mark.parametrize("wait", ["1e9", "61", "inf", "1e999"])
async def test_wait_is_clamped_from_above(controller: InProcess, monkeypatch: pytest.MonkeyPatch, wait: str) -> None:
    """No caller waits longer than the limit that GET /federation tells."""
    assert (await controller.http.get("/v1/federation")).json()["limits"]["max_wait_s"] == 60
    monkeypatch.setattr(hot, "MAX_WAIT_S", 0.05)
    anna = await join(controller.http, "anna")
    async with asyncio.timeout(10):
        assert (await anna.call("GET", f"{anna.path}/task?wait={wait}")).status_code == 204


@pytest.mark.parametrize("wait", ["-5", "0", "-inf"])
async def test_wait_is_clamped_from_below(controller: InProcess, wait: str) -> None:
    """A wait below nothing is none."""
    anna = await join(controller.http, "anna")
    assert (await anna.call("GET", f"{anna.path}/task?wait={wait}")).status_code == 204


@pytest.mark.parametrize("wait", ["soon", "nan", "", "1,5", "%ff"])
async def test_a_wait_that_is_no_number_is_refused(controller: InProcess, wait: str) -> None:
    """400, naming what came."""
    anna = await join(controller.http, "anna")
    problem(await anna.call("GET", f"{anna.path}/task?wait={wait}"), 400, "not-parseable")


async def test_after_shutdown_polls_are_over(controller: InProcess) -> None:
    """410 `federation-over`: for the poll that waits, and for every later one."""
    anna = await join(controller.http, "anna")
    poll = await waiting(anna)
    assert (await controller.http.post("/v1/shutdown")).status_code == 202
    problem(await asyncio.wait_for(poll, 2), 410, "federation-over")
    problem(await anna.call("GET", f"{anna.path}/task?wait=60"), 410, "federation-over")


async def test_the_poll_of_an_unknown_learner_is_404(controller: InProcess) -> None:
    """An operator may ask for any learner; there must be one."""
    problem(await controller.http.get("/v1/learners/nobody/task?wait=60"), 404, "unknown-learner")


# ---- heartbeats
async def test_a_heartbeat_renews_the_lease(controller: InProcess) -> None:
    """204, also without a body; the learner was seen later than before."""
    anna = await join(controller.http, "anna")
    before = (await controller.http.get(anna.path)).json()["last_seen"]
    assert (await anna.call("POST", f"{anna.path}/heartbeat")).status_code == 204

    async def seen_later() -> bool:
        assert (await beat(anna)).status_code == 204
        return bool((await controller.http.get(anna.path)).json()["last_seen"] > before)

    assert await until(seen_later, 5)  # the time is told in milliseconds


async def test_progress_is_shown_to_who_looks(controller: InProcess) -> None:
    """Epoch, batch and loss of the task at hand appear on the learner, and go with its task."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    told = {"epoch": 2, "batch": 7, "loss": 0.25}
    assert (await beat(anna, task_id=task["id"], progress=told)).status_code == 204
    assert (await controller.http.get(anna.path)).json()["progress"] == told
    await anna.work()
    assert (await controller.http.get(anna.path)).json()["progress"] is None
    assert (await beat(anna, task_id=task["id"], progress=told)).status_code == 204  # accepted: nothing to drop
    assert (await controller.http.get(anna.path)).json()["progress"] is None


async def test_a_heartbeat_says_that_a_task_is_no_longer_wanted(controller: InProcess) -> None:
    """410 when the run has ended, 409 when the round closed, 404 for a task that never was."""
    anna, ben = await begin(controller.http, "anna", "ben", **PARTLY)
    late = await ben.task()
    await anna.work()
    closed = problem(await beat(ben, task_id=late["id"]), 409, "round-closed")
    assert (closed["round"], closed["current_round"]) == (1, 1)
    open_task = await anna.task()
    await controller.http.post("/v1/runs/current/stop")
    problem(await beat(anna, task_id=open_task["id"]), 410, "task-void")
    problem(await beat(anna, task_id="0000"), 404, "unknown-task")


# ---- failures
async def test_a_failed_init_goes_to_the_next_learner(controller: InProcess) -> None:
    """Whoever cannot give initial weights is not asked again; the next of the draw is."""
    members = [await join(controller.http, name) for name in ("anna", "ben")]
    await controller.http.post("/v1/runs", json={"min_learners": 2, "termination": {"federation_rounds": 1}})
    asked = [(await one.call("GET", f"{one.path}/task")).status_code for one in members]
    first = members[asked.index(200)]
    other = members[asked.index(204)]
    assert (await fail(first, await first.task())).status_code == 204
    assert (await other.task())["kind"] == "init"


async def test_the_round_goes_on_without_a_learner_that_failed(controller: InProcess) -> None:
    """204; said twice changes nothing; the round shows the reason and closes with the others."""
    anna, ben = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    assert (await fail(anna, task, "Traceback …\nMemoryError: no memory")).status_code == 204
    assert (await fail(anna, task, "another story")).status_code == 204
    await ben.work()
    assert (await ben.task())["kind"] == "evaluate"
    (one,) = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert one["completed"] == ["ben"]
    assert one["failed"] == {"anna": "MemoryError: no memory"}


async def test_a_traceback_is_in_the_results_alone(controller: InProcess) -> None:
    """Rounds, events and the run's reason show the line; one that is longer than its limit is 422 and nothing."""
    (anna,) = await begin(controller.http, "anna")
    task = await anna.task()
    trace = "Traceback (most recent call last):\n  …\nMemoryError: no memory"
    problem(await fail(anna, task, "MemoryError", traceback="x" * (TRACEBACK + 1)), 422, "invalid-request")
    assert (await fail(anna, task, "MemoryError: no memory (a.py:3 in train)", traceback=trace)).status_code == 204
    found = {path: (await controller.http.get(f"/v1/runs/latest{path}")).json() for path in ("", "/rounds", "/results")}
    told = [one for one in found["/results"]["tasks"] if one["state"] == "failed"]
    assert [(one["reason"], one["traceback"]) for one in told] == [("MemoryError: no memory (a.py:3 in train)", trace)]
    assert "anna: MemoryError: no memory (a.py:3 in train)" in found["/rounds"][0]["failure"]
    log = controller.app.state.runtime.events.after(0)
    (failed,) = [one for one in log if one.kind == "task-failed"]
    assert failed.data["reason"] == "MemoryError: no memory (a.py:3 in train)"
    shown = [found[""], found["/rounds"], *(one._asdict() for one in log)]
    assert "Traceback" not in repr(shown)


async def test_a_run_in_which_all_fail_ends_with_their_reasons(controller: InProcess) -> None:
    """After three rounds in a row the run is failed, and its reason quotes the learners."""
    members = await begin(controller.http, "anna", "ben")
    for _ in range(3):
        for one in members:
            assert (await fail(one, await one.task(), "unsupported-task")).status_code == 204
    run = (await controller.http.get("/v1/runs/latest")).json()
    assert run["state"] == "failed"
    assert "anna: unsupported-task" in run["reason"]


async def test_a_failure_after_the_result_changes_nothing(controller: InProcess) -> None:
    """The accepted update stays accepted."""
    anna, ben = await begin(controller.http, "anna", "ben")
    task = await anna.work()
    assert (await fail(anna, task)).status_code == 204
    await ben.work()
    (one,) = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert (one["completed"], one["failed"]) == (["anna", "ben"], {})


async def test_a_failure_that_comes_too_late_or_for_another(controller: InProcess) -> None:
    """403 for another learner's task, 404 for none, 410 after the end of the run."""
    anna, ben = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    problem(await fail(ben, task), 403, "forbidden")
    problem(await fail(ben, {"id": "0000"}), 404, "unknown-task")
    await controller.http.post("/v1/runs/current/stop")
    problem(await fail(anna, task), 410, "task-void")
