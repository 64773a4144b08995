"""Clients that others' generators make of the OpenAPI document: each does every call of a round, weights included."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Process, Served, serve
from tests.contract.conftest import HERE, Run
from tests.controller_api.driving import ENROLL, OPERATOR, bearer

pytestmark = [pytest.mark.internet, pytest.mark.slow]
TOKENS: dict[str, Any] = {"METIS_ENROLL_TOKEN": ENROLL, "METIS_OPERATOR_TOKEN": OPERATOR}


@pytest.fixture
def round_of_one(start: Callable[..., Process], tmp_path: Path) -> Iterator[Served]:
    """A controller with tokens and a run of one round, which must end well: its model is what one update made."""
    served = serve(start, tmp_path, **TOKENS)
    with httpx.Client(base_url=served.url, headers=bearer(OPERATOR)) as http:
        http.post("/v1/runs", json={"termination": {"federation_rounds": 1}}).raise_for_status()
        yield served
        results = http.get("/v1/runs/latest/results").raise_for_status().json()
        assert results["run"]["state"] == "completed", results["run"]
        (done,) = results["rounds"]
        assert done["completed"] == ["generated"]
        assert done["evaluation_metrics"]["combined"] == {"first": 1.5}
        assert http.get("/v1/learners").json() == []


SAID = ["init init 0", "train train 1", "evaluate evaluate 1"]


def test_openapi_python_client(python: Run, document: Path, round_of_one: Served, tmp_path: Path) -> None:
    """Made without options but for where it goes."""
    place = ("--path", str(document), "--output-path", str(tmp_path / "client"), "--meta", "none")
    python("openapi_python_client", "generate", *place, cwd=tmp_path)
    shutil.copy(HERE / "python_learner.py", tmp_path)
    said = python("python_learner.py", round_of_one.url, ENROLL, cwd=tmp_path)
    assert said.splitlines() == SAID


def test_hey_api(node: Run, document: Path, round_of_one: Served, tmp_path: Path) -> None:
    """Made without options, compiled with every check of types, run by node."""
    node("openapi-ts", "--input", str(document), "--output", str(tmp_path / "client"), cwd=tmp_path)
    shutil.copy(HERE / "typescript_learner.ts", tmp_path)
    compiled = ("--strict", "--module", "commonjs", "--target", "es2022", "--skipLibCheck", "--outDir", "made")
    node("tsc", *compiled, "typescript_learner.ts", cwd=tmp_path)
    said = node("node", "made/typescript_learner.js", round_of_one.url, ENROLL, cwd=tmp_path)
    assert said.splitlines() == SAID
