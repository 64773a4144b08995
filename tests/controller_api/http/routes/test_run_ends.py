"""Runs that are stopped, and runs that are driven by hand."""

from __future__ import annotations

from tests.conftest import InProcess
from tests.controller_api.driving import arrays_of, begin, problem, seen, whole_round


async def test_stopping_ends_a_run_and_keeps_what_it_made(controller: InProcess) -> None:
    """202 with the reason that was given; again changes nothing; an unknown run is 404."""
    members = await begin(controller.http, "anna")
    await whole_round(members, 1.0, 0.5)
    answer = await controller.http.post("/v1/runs/current/stop", json={"reason": "enough"})
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["reason"]) == ("stopped", "enough")
    before = await seen(controller.http)
    again = await controller.http.post("/v1/runs/latest/stop", json={"reason": "another"})
    assert (again.status_code, again.json()["reason"]) == (202, "enough")
    assert await seen(controller.http) == before
    assert arrays_of((await controller.http.get("/v1/runs/latest/model")).content)[0] == [1.0] * 6
    problem(await controller.http.post("/v1/runs/current/stop"), 404, "unknown-run")


async def test_a_manual_run_goes_on_when_it_is_told_to(controller: InProcess) -> None:
    """Each POST /rounds starts one; with its number it may be repeated; between them the run says whom it waits for."""
    http = controller.http
    (anna,) = await begin(http, "anna", advance="manual")
    run = (await http.get("/v1/runs/current")).json()
    assert (run["state"], run["round"]) == ("waiting", 0)
    assert "operator" in run["waiting_for"]
    assert (await anna.call("GET", f"{anna.path}/task")).status_code == 204
    for _ in range(2):
        told = await http.post("/v1/runs/current/rounds", json={"round": 1})
        assert (told.status_code, told.json()["round"]) == (202, 1)
    await whole_round([anna], 1.0, 0.5)
    assert (await http.post("/v1/runs/current/rounds", json={"round": 1})).json()["state"] == "waiting"
    assert (await http.post("/v1/runs/current/rounds")).json()["round"] == 2
    await whole_round([anna], 2.0, 0.5)
    assert (await http.get("/v1/runs/latest")).json()["state"] == "completed"
    problem(await http.post("/v1/runs/latest/rounds"), 410, "task-void")


async def test_rounds_of_other_runs_start_by_themselves(controller: InProcess) -> None:
    """409 `not-manual`, and 404 without such a run."""
    problem(await controller.http.post("/v1/runs/current/rounds"), 404, "unknown-run")
    await begin(controller.http, "anna")
    problem(await controller.http.post("/v1/runs/current/rounds"), 409, "not-manual")
