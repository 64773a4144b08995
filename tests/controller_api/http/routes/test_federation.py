"""The federation at a glance, its end, and how the process is."""

from __future__ import annotations

from pathlib import Path

from services import ModelStoreConfig, __version__
from tests.conftest import InProcess, in_process
from tests.controller_api.driving import TOKENS, VIEWER, bearer, begin, join, listening, problem, settings


async def test_an_empty_federation_is_idle(controller: InProcess) -> None:
    """State, version, limits, and in words that nothing outlives the process; no run."""
    shown = (await controller.http.get("/v1/federation")).json()
    assert (shown["state"], shown["waiting_for"], shown["learners"], shown["run"]) == ("idle", None, [], None)
    assert (shown["version"], shown["contract"]) == (__version__, 1)
    assert (shown["model_store"], shown["durable"], shown["open"]) == ("InMemory", False, True)
    assert shown["kept"].startswith("nothing is kept: learners, runs, rounds and models are in memory and end with")
    assert shown["limits"] == {
        "max_model_bytes": 2 * 1024**3,
        "max_json_bytes": 1024**2,
        "max_wait_s": 60,
        "lease_s": 30,
    }


async def test_a_federation_at_work_says_what_it_waits_for(controller: InProcess) -> None:
    """Run, learners by name with their tasks, and the learner that a round waits for, in words."""
    anna, ben = await begin(controller.http, "ben", "anna")
    await anna.work()
    shown = (await controller.http.get("/v1/federation")).json()
    assert (shown["state"], shown["run"]["round"]) == ("training", 1)
    assert [one["name"] for one in shown["learners"]] == ["anna", "ben"]
    assert [one["task"] is not None for one in shown["learners"]] == [True, False]
    assert "anna" in shown["waiting_for"]
    assert ben.name == "anna"


async def test_a_store_on_disk_is_durable(tmp_path: Path) -> None:
    """The page and the driver can warn of models that end with the controller."""
    store = ModelStoreConfig(model_store="OnDisk")
    async with in_process(settings(data_dir=tmp_path, **TOKENS), store=store) as running:
        shown = (await running.http.get("/v1/federation", headers=bearer(VIEWER))).json()
    assert (shown["model_store"], shown["durable"], shown["open"]) == ("OnDisk", True, False)
    assert "started again" in shown["kept"]


async def test_shutdown_ends_the_run_and_the_federation(controller: InProcess) -> None:
    """202, again too; the run is stopped with its reason; nobody joins or starts any more; reading goes on."""
    http = controller.http
    (anna,) = await begin(http, "anna")
    assert (await http.get("/readyz")).status_code == 200
    for _ in range(2):
        assert (await http.post("/v1/shutdown")).status_code == 202
    problem(await http.post("/v1/learners", json={"name": "ben"}), 410, "federation-over")
    problem(await anna.call("POST", "/v1/learners", json={}), 410, "federation-over")
    problem(await http.post("/v1/runs", json={"termination": {"federation_rounds": 1}}), 410, "federation-over")
    shown = (await http.get("/v1/federation")).json()
    assert (shown["state"], shown["run"]["state"]) == ("over", "stopped")
    assert "shutting down" in shown["run"]["reason"]
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert (await http.get("/v1/runs/latest/model")).status_code == 200


async def test_a_server_ends_once_its_agents_have_heard(tmp_path: Path) -> None:
    """The process waits for the poll of each live learner, then ends by itself."""
    async with listening(data_dir=tmp_path) as running:
        anna = await join(running.http, "anna")
        await running.http.post("/v1/shutdown")
        assert not running.app.state.runtime.stopped.is_set()
        problem(await anna.call("GET", f"{anna.path}/task"), 410, "federation-over")
        await running.app.state.runtime.stopped.wait()


async def test_metrics_tell_what_happened(controller: InProcess) -> None:
    """Prometheus' text format: requests by route and status, learners, results, rounds, scores."""
    (anna,) = await begin(controller.http, "anna", termination={"federation_rounds": 1})
    await anna.work()
    await anna.work(accuracy=0.75)
    await controller.http.get("/v1/nowhere")
    answer = await controller.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'metis_http_requests_total{method="POST",route="/v1/learners",status="201"} 1.0',
        'metis_http_requests_total{method="GET",route="none",status="404"} 1.0',
        'metis_learners{state="active"} 1.0',
        'metis_results_total{kind="train"} 1.0',
        "metis_rounds_total 1.0",
        'metis_evaluation{metric="accuracy"} 0.75',
    ):
        assert line in lines


async def test_every_reading_path_answers_head(controller: InProcess) -> None:
    """HEAD has the status and the length of GET, and no body."""
    await begin(controller.http, "anna")
    for path in (
        "/v1/learners",
        "/v1/federation",
        "/v1/runs",
        "/v1/runs/current",
        "/v1/runs/latest/rounds",
        "/healthz",
    ):
        head, get = await controller.http.head(path), await controller.http.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
