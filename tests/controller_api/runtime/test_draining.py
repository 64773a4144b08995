"""A controller that ends: it gives nothing more out, takes what is on its way, and leaves the run as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller_api.runtime import runtime as runtime_module
from services import ModelStoreConfig
from services.engine import aggregate
from services.errors import DiskFull, FederationError, StoreUnavailable
from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import begin, document, settings, weights

ONE_ROUND: dict[str, Any] = {"termination": {"federation_rounds": 1}}


@pytest.fixture
def again(tmp_path: Path) -> Callable[[], Any]:
    """`async with again() as controller`: a controller on the folder of this test, each time with what was kept."""

    @asynccontextmanager
    async def started() -> AsyncIterator[InProcess]:
        async with in_process(settings(data_dir=tmp_path), store=ModelStoreConfig("OnDisk", 1)) as controller:
            yield controller

    return started


async def test_no_task_is_given_and_an_update_is_taken(controller: InProcess) -> None:
    """A poll is answered with nothing although there is a task; it is not ready."""
    (anna,) = await begin(controller.http, "anna")
    task = await anna.task()
    controller.app.state.runtime.drain()
    assert (await anna.call("GET", f"{anna.path}/task", params={"wait": 30})).status_code == 204
    assert (await anna.put(task, document(*weights(1.0)))).status_code == 201
    assert (await anna.call("GET", f"{anna.path}/task", params={"wait": 30})).status_code == 204
    assert (await controller.http.get("/readyz")).status_code == 503
    assert (await controller.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("error", [StoreUnavailable("the store is away"), DiskFull("no space left")])
async def test_a_run_whose_aggregation_waits_for_the_store_is_not_failed_by_the_end(
    again: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, error: FederationError
) -> None:
    """The next process does the aggregation anew."""

    def unlucky(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(runtime_module, "aggregate", unlucky)
    async with again() as controller:
        (anna,) = await begin(controller.http, "anna", **ONE_ROUND)
        await anna.work(1.0)

        async def held_up() -> bool:
            return "held up" in (await controller.http.get("/v1/federation")).json()["waiting_for"]

        await until(held_up, 10)
    monkeypatch.setattr(runtime_module, "aggregate", aggregate)
    async with again() as controller:
        anna.http = controller.http
        assert (await anna.work(accuracy=0.5))["kind"] == "evaluate"
        assert (await controller.http.get("/v1/runs/latest")).json()["state"] == "completed"
