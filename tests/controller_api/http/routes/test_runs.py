"""Runs: starting, following, stopping, driving by hand, their results and models."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from controller_api.app import create_app
from services import ControllerConfig
from tests.conftest import URL, InProcess, until
from tests.controller_api.driving import (
    MSGPACK,
    TWO_ROUNDS,
    arrays_of,
    begin,
    digest_of,
    join,
    model,
    problem,
    settings,
    weights,
    whole_round,
)

JSON = {"Content-Type": "application/json"}


# ---- starting
async def test_a_run_is_started_with_the_keys_that_its_user_wrote(controller: InProcess) -> None:
    """201, a Location, and the whole configuration: what was sent over the defaults of DESIGN, nested key by key."""
    given = {"train": {"epochs": 2}, "schedule": {"lease_s": 5}, "name": None, **TWO_ROUNDS}
    answer = await controller.http.post("/v1/runs", json=given)
    assert answer.status_code == 201
    run = answer.json()
    config = run["config"]
    assert (run["state"], run["round"], run["model"], run["ended_at"]) == ("waiting", 0, None, None)
    assert "waiting for 1 more of 1 learners" in run["waiting_for"]
    assert (config["seed"], config["min_learners"], config["aggregation_rule"]) == (1990, 1, "FedAvg")
    assert (config["scaling_factor"], config["scheduler"]) == ("NumTrainingExamples", "Synchronous")
    assert (config["schedule"]["lease_s"], config["schedule"]["round_deadline_s"]) == (5, 3600)
    assert (config["train"], config["name"], config["advance"]) == ({"epochs": 2}, None, "auto")
    assert (await controller.http.get(answer.url.join(answer.headers["location"]))).json()["id"] == run["id"]


async def test_a_configuration_goes_over_the_controllers_own_defaults() -> None:
    """What the controller was started with holds where the client wrote nothing, also within a table."""
    app = create_app(settings(), ControllerConfig(scaling_factor="NumParticipants", participation_ratio=0.5))
    caller = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL)
    async with app.router.lifespan_context(app), caller as http:
        given = {"selection": {"over_selection": 1.0}, **TWO_ROUNDS}
        config = (await http.post("/v1/runs", json=given)).json()["config"]
    assert config["scaling_factor"] == "NumParticipants"
    assert config["selection"] == {"participation_ratio": 0.5, "over_selection": 1.0, "parameters": {}}


async def test_one_run_at_a_time(controller: InProcess) -> None:
    """409 `run-active` names the run, before the second configuration is looked at; after its end another may start."""
    first = (await controller.http.post("/v1/runs", json=TWO_ROUNDS)).json()
    for given in (TWO_ROUNDS, {"seed": -1}):
        assert problem(await controller.http.post("/v1/runs", json=given), 409, "run-active")["run"] == first["id"]
    assert len((await controller.http.get("/v1/runs")).json()) == 1
    await controller.http.post("/v1/runs/current/stop")
    assert (await controller.http.post("/v1/runs", json=TWO_ROUNDS)).status_code == 201


async def test_an_idempotency_key_starts_one_run(controller: InProcess) -> None:
    """The same key and configuration give the same run, also after its end; another configuration is a conflict."""
    http, key = controller.http, {"Idempotency-Key": "mine"}
    first = await http.post("/v1/runs", json=TWO_ROUNDS, headers=key)
    assert (await http.post("/v1/runs", json=TWO_ROUNDS, headers=key)).json()["id"] == first.json()["id"]
    problem(await http.post("/v1/runs", json={**TWO_ROUNDS, "seed": 1}, headers=key), 409, "different-body")
    await http.post("/v1/runs/current/stop")
    again = await http.post("/v1/runs", json=TWO_ROUNDS, headers=key)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (201, first.json()["id"], "stopped")
    assert len((await http.get("/v1/runs")).json()) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"agregation_rule": "FedAvg"}, "did you mean aggregation_rule?"),
        ({"schedule": {"lease": 3}}, "did you mean lease_s?"),
        ({"termination": {"rounds": 3}}, "federation_rounds"),
        ({"aggregation_rule": "FedAvgg"}, "did you mean FedAvg?"),
        ({"scheduler": "Synchron"}, "did you mean Synchronous?"),
        ({"scaling_factor": "NumExamples"}, "NumTrainingExamples"),
        ({"selection": {"participation_ratio": 0}}, "selection.participation_ratio"),
        ({"seed": "x"}, "seed"),
        ({"min_learners": 0}, "min_learners"),
        ({"aggregation": {"trim": 1}}, "trim"),
        ({"selection": {"parameters": {"label": "site"}}}, "selection.parameters: All does not take"),
        ({"selector": "ByLabel"}, "selection.parameters: ByLabel needs label"),
        ({"train_schedule": {"lr": {"kind": "stp"}}}, "train_schedule.lr.kind: there is no 'stp'; did you mean step?"),
        ({"evaluate_schedule": {"n": {"kind": "exponential", "decay": 0.5}}}, "which must be given"),
        ({"initial_model": "latest"}, "initial_model"),
        ({"advance": "by hand"}, "advance"),
        ({}, "termination"),
        ({"termination": {"evaluation_metric": "accuracy"}}, "evaluation_metric_cutoff_score"),
    ],
)
async def test_a_configuration_that_cannot_work_is_refused(
    controller: InProcess, given: dict[str, Any], told: str
) -> None:
    """422 `invalid-config` that names the key and the nearest known name; no run is started."""
    full = given if "termination" in given or not given else {**TWO_ROUNDS, **given}
    assert told in problem(await controller.http.post("/v1/runs", json=full), 422, "invalid-config")["detail"]
    assert (await controller.http.get("/v1/runs")).json() == []


async def test_a_run_begins_with_the_model_that_it_names(controller: InProcess) -> None:
    """`initial_model`: no learner is asked for one; 404 when it was not put before."""
    body = model(*weights(7.0))
    given = {**TWO_ROUNDS, "initial_model": digest_of(body)}
    problem(await controller.http.post("/v1/runs", json=given), 404, "unknown-model")
    path = f"/v1/models/{digest_of(body)}"
    await controller.http.put(path, content=body, headers={"Content-Type": MSGPACK})
    assert (await controller.http.post("/v1/runs", json=given)).json()["model"] == digest_of(body)
    anna = await join(controller.http, "anna")
    task = await anna.task()
    assert (task["kind"], task["model"]["digest"]) == ("train", digest_of(body))


# ---- following
async def test_current_and_latest_stand_for_an_id(controller: InProcess) -> None:
    """`current` is the active run, `latest` the newest; with no such run both are 404, as an unknown id is."""
    http = controller.http
    for name in ("current", "latest", "0000"):
        for part in ("", "/rounds", "/results", "/model"):
            problem(await http.get(f"/v1/runs/{name}{part}"), 404, "unknown-run")
    run = (await http.post("/v1/runs", json=TWO_ROUNDS)).json()
    for name in ("current", "latest", run["id"]):
        assert (await http.get(f"/v1/runs/{name}")).json()["id"] == run["id"]
    await http.post("/v1/runs/current/stop")
    problem(await http.get("/v1/runs/current"), 404, "unknown-run")
    assert (await http.get("/v1/runs/latest")).json()["state"] == "stopped"


async def test_a_run_completes_with_its_reason(controller: InProcess) -> None:
    """Two rounds are two aggregations; the states, the models and their parents are on record."""
    members = await begin(controller.http, "anna", "ben")
    zero = (await controller.http.get("/v1/runs/current")).json()["model"]
    await whole_round(members, 1.0, 0.5)
    await whole_round(members, 2.0, 0.75)
    results = (await controller.http.get("/v1/runs/latest/results")).json()
    run, (first, second) = results["run"], results["rounds"]
    assert (run["state"], run["round"], run["waiting_for"]) == ("completed", 2, None)
    assert run["reason"]
    assert (results["ended_by"], results["global_iteration"]) == ("federation_rounds", 2)
    assert (first["parent"], second["parent"], second["model"]) == (zero, first["model"], run["model"])
    assert results["model"] == run["model"]
    assert [one["evaluation_metrics"]["combined"]["accuracy"] for one in (first, second)] == [0.5, 0.75]
    assert [one["selected"] for one in (first, second)] == [["anna", "ben"]] * 2
    kinds = [(one["kind"], one["round"], one["state"]) for one in results["tasks"]]
    assert kinds.count(("train", 1, "accepted")) == kinds.count(("evaluate", 2, "accepted")) == 2
    assert kinds.count(("init", 0, "accepted")) == 1
    assert len(kinds) == 9
    assert [one["name"] for one in results["learners"]] == ["anna", "ben"]


async def test_an_operator_scores_the_models_of_a_run(controller: InProcess) -> None:
    """With `evaluation.who` the driver: its scores are those of the round, sent twice they are taken once."""
    (anna,) = await begin(controller.http, "anna", evaluation={"who": "driver"})
    await anna.work()

    async def evaluating() -> bool:
        return bool((await controller.http.get("/v1/runs/current")).json()["state"] == "evaluating")

    await until(evaluating)
    path = "/v1/runs/current/rounds/1/scores"
    for _ in range(2):
        answer = await controller.http.put(path, json={"metrics": {"accuracy": 0.5}})
        assert (answer.status_code, answer.json()["evaluation_metrics"]["combined"]) == (200, {"accuracy": 0.5})
    problem(await controller.http.put(path, json={"metrics": {"accuracy": 0.6}}), 409, "different-body")
    problem(await controller.http.put(path, json={"metrics": {"accuracy": "high"}}), 422, "invalid-request")
    problem(await controller.http.put("/v1/runs/current/rounds/9/scores", json={}), 422, "invalid-request")
    assert (await controller.http.get("/v1/runs/current")).json()["round"] == 2


async def test_results_before_the_end_hold_the_closed_rounds(controller: InProcess) -> None:
    """The round in progress is in /rounds alone."""
    members = await begin(controller.http, "anna")
    assert (await controller.http.get("/v1/runs/current/results")).json()["rounds"] == []
    await whole_round(members, 1.0, 0.5)
    await members[0].task()
    results = (await controller.http.get("/v1/runs/current/results")).json()
    assert [one["round"] for one in results["rounds"]] == [1]
    assert results["ended_by"] is None
    rounds = (await controller.http.get("/v1/runs/current/rounds")).json()
    assert [(one["round"], one["state"]) for one in rounds] == [(1, "closed"), (2, "training")]


async def test_the_model_of_a_run_is_the_latest_or_the_best(controller: InProcess) -> None:
    """404 before model 0, and before anything says which one is best; then by the highest accuracy."""
    http = controller.http
    await http.post("/v1/runs", json=TWO_ROUNDS)
    problem(await http.get("/v1/runs/current/model"), 404, "unknown-model")
    await http.post("/v1/runs/current/stop")
    members = await begin(http, "anna", termination={"federation_rounds": 3})
    assert arrays_of((await http.get("/v1/runs/current/model")).content) == [[0.0] * 6, [0.0] * 3]
    problem(await http.get("/v1/runs/current/model?which=best"), 404, "unknown-model")
    for value, accuracy in ((1.0, 0.9), (2.0, 0.4), (3.0, 0.6)):
        await whole_round(members, value, accuracy)
    for which, value in (("", 3.0), ("?which=latest", 3.0), ("?which=best", 1.0)):
        answer = await http.get(f"/v1/runs/latest/model{which}")
        assert answer.headers["content-type"] == MSGPACK
        assert answer.headers["etag"] == f'"{digest_of(answer.content)}"'
        assert arrays_of(answer.content) == [[value] * 6, [value] * 3]
    run = (await http.get("/v1/runs/latest")).json()
    assert (run["best_round"], run["model"] != run["best_model"]) == (1, True)
    problem(await http.get("/v1/runs/latest/model?which=worst"), 422, "invalid-request")
    tag = {"If-None-Match": f'"{run["model"]}"'}
    assert (await http.get("/v1/runs/latest/model", headers=tag)).status_code == 304
    assert (await http.head("/v1/runs/latest/model")).status_code == 200


async def test_only_the_newest_two_models_and_the_best_are_kept(controller: InProcess) -> None:
    """Older community models are gone once nothing needs them."""
    members = await begin(controller.http, "anna", termination={"federation_rounds": 4})
    made = [(await controller.http.get("/v1/runs/current")).json()["model"]]
    for value, accuracy in ((1.0, 0.9), (2.0, 0.1), (3.0, 0.2), (4.0, 0.3)):
        await whole_round(members, value, accuracy)
        made.append((await controller.http.get("/v1/runs/latest")).json()["model"])
    statuses = [(await controller.http.get(f"/v1/models/{digest}")).status_code for digest in made]
    assert statuses == [404, 200, 404, 200, 200]
