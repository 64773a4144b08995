"""Rows that a learner holds in a variable when its code fails are in no log, no answer and no file of any process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services import messages as m
from services.rest import Client
from tests.conftest import Process, serve, until

CANARY = "Anna-Example-C91"  # in no source line: it is read from a file
SILENT_X = 2_000_000
PATIENTS = f'''
"""Fails in set_weights, then in train, then in evaluate; ROWS is the file of its patients."""

import os
from pathlib import Path

import numpy as np

from learner_agent import Learner, app


def fail(method):
    patients = Path(os.environ["ROWS"]).read_text().split()
    rows = [dict(name=one) for one in patients]
    raise ValueError(f"{{method}}: {{len(rows)}} rows are bad: " + "x" * {SILENT_X})


class Patients(Learner):
    def __init__(self, index=0, count=1):
        self.healthy, self.taken, self.trained = "HEALTHY" in os.environ or index == 1, 0, 0
        self.rows = Path(os.environ["ROWS"]).read_text()

    def get_weights(self):
        return [np.zeros(3, np.float32)]

    def set_weights(self, weights):
        self.taken += 1
        rows = self.rows
        if self.taken == 1 and not self.healthy:
            fail("set_weights")

    def train(self, weights, config):
        self.trained += 1
        rows = self.rows
        if self.trained == 1 and not self.healthy:
            fail("train")
        return weights, {{}}, {{"num_training_examples": 10}}

    def evaluate(self, weights, config):
        rows = self.rows
        if not self.healthy and self.trained > 1:
            fail("evaluate")
        return {{"score": 1.0}}


if __name__ == "__main__":
    app(Patients(), controller=os.environ["METIS_CONTROLLER_URL"], name="script")
'''
AGENT = ("-m", "learner_agent", "--learner", "patients:Patients", "--name")
MODES = {
    "thread": (*AGENT, "thread"),
    "process": (*AGENT, "process", "--process"),
    "webhook": (*AGENT, "webhook", "--listen", "127.0.0.1:0"),
    "script": ("patients.py",),
}
KEPT = ("process", "script")  # whose sites keep tracebacks to themselves
METHODS = ("set_weights", "train", "evaluate")
ROUNDS = {"termination": {"federation_rounds": 3}, "scaling_factor": "NumParticipants"}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """The patients, and the learner's module beside them."""
    (tmp_path / "patients.py").write_text(PATIENTS)
    file = tmp_path / "rows.txt"
    file.write_text(f"{CANARY}\n" * 3)
    return file


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_federation_of_learners_that_fail(
    start: Callable[..., Process], tmp_path: Path, rows: Path, form: str
) -> None:
    """Each way to run an agent beside a healthy one: all end in time, what failed is told, the rows are nowhere."""
    served = serve(start, tmp_path, METIS_LOG_FORMAT=form, METIS_LOG_LEVEL="debug", NO_COLOR="1")
    given = {"METIS_CONTROLLER_URL": served.url, "ROWS": str(rows)}
    report = {name: "message" if name in KEPT else "traceback" for name in MODES}
    processes = [start(name, *mode, cwd=tmp_path, METIS_REPORT=report[name], **given) for name, mode in MODES.items()]
    processes.append(start("healthy", *AGENT, "healthy", cwd=tmp_path, HEALTHY="1", **given))
    async with Client(served.url) as client:

        async def here() -> bool:
            return len(await client.learners()) == len(processes)

        await until(here, 60)
        await client.start_run({**ROUNDS, "min_learners": len(processes)})

        async def over() -> bool:
            return (await client.run()).state in m.TERMINAL

        await until(over, 90)
        results = await client.results()
        assert results.run.state == "completed"
        shown = results.model_dump_json() + "".join(
            one.model_dump_json() for one in [await client.federation(), *await client.rounds()]
        )
    assert CANARY not in shown
    for process in (served.process, *processes):
        process.end()
        log = process.log.read_text(errors="replace")
        assert log
        assert CANARY not in log, process.log.name
        assert len(log) < 300_000
    for process in processes[:-1]:
        log = process.log.read_text(errors="replace")
        assert all(f"ValueError: {method}: 3 rows" in log for method in METHODS), process.tail()
    for file in (tmp_path / "controller").rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
    for name in MODES:
        failed = [task for task in results.tasks if task.learner == name and task.state == "failed"]
        assert [(task.reason or "").partition(":")[2].split(":")[0].strip() for task in failed] == list(METHODS)
        assert all("(patients.py:" in (task.reason or "") and "in fail)" in (task.reason or "") for task in failed)
        assert ["in fail" in (task.traceback or "") for task in failed] == [name not in KEPT] * 3
        assert [task.traceback is None for task in failed] == [name in KEPT] * 3


def test_a_simulation_of_learners_that_fail(tmp_path: Path, rows: Path) -> None:
    """Neither on its screen nor in its results."""
    command = ("simulate", "--learners", "2", "--rounds", "3", "--learner", "patients:Patients", "--out", "r.json")
    done = subprocess.run(
        [sys.executable, "-m", "driver_cli", *command, "--set", "scaling_factor=NumParticipants"],
        cwd=tmp_path,
        env={"ROWS": str(rows), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    said, results = done.stdout + done.stderr, (tmp_path / "r.json").read_text()
    assert done.returncode == 0, said[-3000:]
    assert [f"ValueError: {method}: 3 rows" in said for method in METHODS] == [True] * 3, said[-3000:]
    assert CANARY not in said + results
    assert len(said) < 100_000
    assert len([task for task in json.loads(results)["tasks"] if task["traceback"]]) == len(METHODS)
