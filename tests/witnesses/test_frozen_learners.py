"""Learners that were written for earlier versions, run as they were then, against the controller of today."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.witnesses.commands import Command, controller

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("*/foreign_learner.py"))
OPERATOR, ENROLMENT = "operator-of-the-witness", "enrolment-of-the-witness"
ROUNDS, LIMIT_S, ENDS_S = 2, 60.0, 20.0

pytestmark = pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="needs bash and curl")


@contextlib.contextmanager
def learners(version: Path, url: str, folder: Path) -> Iterator[list[Command]]:
    """The one in curl and the one that was written from the OpenAPI document, unmodified; ended on leaving."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # python3 is the one of the tests
    script = str(version / "examples" / "curl-learner" / "learner.sh")
    secret = folder / "enrolment"
    secret.write_text(ENROLMENT)
    digits = str(version / "learner_agent" / "digits.npz")
    alone = (sys.executable, "-I", str(version / "foreign_learner.py"))  # nothing of the project can be imported
    with contextlib.ExitStack() as stack:
        given = {"PATH": path, "METIS_ENROLL_TOKEN": ENROLMENT}
        curl = Command(folder / "curl.log", "bash", script, url, "curl", cwd=folder, **given)
        stack.callback(curl.end)
        rows = ("0", "450")
        foreign = Command(folder / "foreign.log", *alone, url, "foreign", digits, *rows, str(secret), cwd=folder)
        stack.callback(foreign.end)
        yield [curl, foreign]


def over(http: httpx.Client) -> Any:
    """The results of the run, once it has ended."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        run = http.get("/v1/runs/latest").raise_for_status().json()
        if run["state"] in ("completed", "stopped", "failed"):
            return http.get("/v1/runs/latest/results").raise_for_status().json()
        time.sleep(0.05)
    raise AssertionError(f"the run is not over: {run}")


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_they_complete_a_federation(version: Path, tmp_path: Path) -> None:
    """Under tokens, beside one another: every round has both updates and scores, the model learns, and both exit 0 when
    the federation is over."""
    tokens = {"METIS_OPERATOR_TOKEN": OPERATOR, "METIS_ENROLL_TOKEN": ENROLMENT}
    with controller(tmp_path / "data", given=tokens) as at, learners(version, at.url, tmp_path) as both:
        at.http.headers["Authorization"] = f"Bearer {OPERATOR}"
        run = {"min_learners": 2, "train": {"epochs": 2}, "termination": {"federation_rounds": ROUNDS}}
        at.http.post("/v1/runs", json=run).raise_for_status()
        results = over(at.http)
        at.http.post("/v1/shutdown").raise_for_status()
        statuses = [one.child.wait(ENDS_S) for one in both]
    told = "\n".join(one.tail() for one in both)
    assert results["run"]["state"] == "completed", (results["run"]["reason"], told)
    assert [one["completed"] for one in results["rounds"]] == [["curl", "foreign"]] * ROUNDS, told
    scores = [one["evaluation_metrics"] for one in results["rounds"]]
    assert all(set(one["learners"]) == {"curl", "foreign"} for one in scores)
    assert scores[-1]["combined"]["accuracy"] > 0.5
    factors = {one["learner"]: one["factor"] for one in results["tasks"] if one["kind"] == "train"}
    assert factors == {"curl": 200, "foreign": 450}
    assert statuses == [0, 0], told
