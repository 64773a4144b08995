"""Sentences of the documentation that no command shows: a path prefix, how a process ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest

from services import messages as m
from services.rest import Client
from services.weights import wire
from tests.conftest import Process, in_process, serve

PREFIX = "/federation"
RUN = {"scaling_factor": "NumParticipants", "termination": {"federation_rounds": 1}}


async def test_path_prefix_of_a_proxy() -> None:
    """docs/deploying.md: behind a proxy that takes a prefix off, a learner does a whole round, locations hold, and
    each state of the run is an event."""
    async with in_process() as to:

        async def proxy(scope: Any, receive: Any, send: Any) -> None:
            assert scope["path"].startswith(f"{PREFIX}/"), scope["path"]
            path = scope["path"].removeprefix(PREFIX)
            await to.app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

        transport = httpx.ASGITransport(proxy)
        base = f"http://localhost{PREFIX}"
        weights = wire.encode(wire.name_tensors([np.array([1.0, 2.0], np.float32)]))
        async with (
            Client(base, transport=transport, patience_s=5.0) as client,
            httpx.AsyncClient(transport=transport) as http,
        ):
            joined = await http.post(f"{base}/v1/learners", json={"name": "bob"})
            location = urljoin(str(joined.url), joined.headers["Location"])
            assert (await http.get(location)).json()["id"] == joined.json()["id"]
            await client.start_run(RUN)
            for kind in ("init", "train", "evaluate"):
                task = await client.next_task(joined.json()["id"])
                assert task is not None
                assert task.kind == kind
                if task.model is not None:
                    assert wire.decode(await client.model(task.model)).arrays[0].tolist() == [1.0, 2.0]
                if kind == "evaluate":
                    await client.submit_evaluation(task, m.EvaluationResult(metrics={"loss": 0.5}))
                else:
                    await client.submit(task, weights)
            assert (await client.run()).state == "completed"
            told = [one.data["state"] for one in to.app.state.runtime.events.after(0) if one.kind == "run-state"]
            assert told == ["initializing", "training", "aggregating", "evaluating"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_controller_ends_well(number: signal.Signals, start: Callable[..., Process], tmp_path: Path) -> None:
    """docs/deploying.md: SIGTERM and SIGINT end a controller with status 0, also while somebody follows its events."""
    served = serve(start, tmp_path)
    with httpx.stream("GET", f"{served.url}/v1/events", timeout=30) as events:
        lines = events.iter_lines()
        assert next(lines).startswith(":")
        served.process.kill(number)
        assert served.process.wait(20) == 0
