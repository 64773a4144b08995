"""`metis demo`: a federation of real processes that leaves nothing running."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..processes import END_S, driver, metis


def children_of(pid: int) -> list[int]:
    """The processes that a process started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_demo_completes_with_a_good_model_and_a_curve(tmp_path: Path) -> None:
    """Five rounds on the digits reach 90 %; settings of another federation in the environment do no harm."""
    done = metis("demo", cwd=tmp_path, METIS_TOKEN="of-another-federation", METIS_OPERATOR_TOKEN="of-another-one-too")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["rounds"]) == 5
    assert results["rounds"][-1]["evaluation_metrics"]["combined"]["accuracy"] >= 0.9
    assert "round 5/5  3/3 learners" in done.stdout
    assert "█" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_demo_ends_its_processes(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle: results so far, status 130, no process left."""
    with driver(["demo", "--rounds", "100000", "--learners", "2"], tmp_path) as running:
        running.until("round 1/")
        started = children_of(running.process.pid)
        running.interrupt(number)
        status, said = running.rest()
    assert status == 130
    assert "Traceback" not in said
    assert len(started) == 3
    assert all(map(gone, started))
    assert (tmp_path / "results.json").exists(), said
    assert json.loads((tmp_path / "results.json").read_text())["run"]["state"] == "stopped"


def test_demo_ends_when_one_of_its_processes_dies(tmp_path: Path) -> None:
    """The tail of the dead process's log is shown, and the others are ended."""
    with driver(["demo", "--rounds", "100000", "--learners", "2"], tmp_path) as running:
        running.until("round 1/")
        started = children_of(running.process.pid)
        os.kill(started[-1], signal.SIGKILL)
        status, said = running.rest()
    assert status == 1
    assert "learner-1 ended with status -9" in said
    assert all(map(gone, started))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends the children of a killed process")
def test_killed_demo_takes_its_processes_with_it(tmp_path: Path) -> None:
    """Even SIGKILL leaves no orphan."""
    with driver(["demo", "--rounds", "100000", "--learners", "2"], tmp_path) as running:
        running.until("round 1/")
        handles = [os.pidfd_open(pid) for pid in children_of(running.process.pid)]
        running.process.kill()
        for handle in handles:
            assert select.select([handle], [], [], END_S)[0], "a process outlived the demo"
            os.close(handle)
