"""`metis simulate` and `metis bench`: federations on this machine alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from services import messages as m

from .conftest import driver, metis

FACTORY = """
import threading
from learner_agent.digits import DigitsLearner

lock, now, most = threading.Lock(), 0, 0

class Counting(DigitsLearner):
    def train(self, weights, config):
        global now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        try:
            return (*super().train(weights, config)[:2], {"num_training_examples": 1, "most_at_once": most})
        finally:
            with lock:
                now -= 1
"""


def test_simulation_of_a_hundred_learners(tmp_path: Path) -> None:
    """Every learner takes part in every round; standard output is the results."""
    done = metis("simulate", "--learners", "100", "--rounds", "2", "--json", "--out", "r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [len(r["completed"]) for r in results["rounds"]] == [100, 100]
    assert results == json.loads((tmp_path / "r.json").read_text())


def test_simulation_keeps_to_its_concurrency(tmp_path: Path) -> None:
    """A learner of one's own, in the working directory; never more than two of them train at once."""
    (tmp_path / "own.py").write_text(FACTORY)
    arguments = ("simulate", "--learners", "12", "--concurrency", "2", "--rounds", "2", "--learner", "own:Counting")
    done = metis(*arguments, "--set", "train.epochs=20", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout)["tasks"]
    assert max(task["metadata"]["most_at_once"] for task in tasks if task["kind"] == "train") == 2


def test_interrupted_simulation_leaves_its_results(tmp_path: Path) -> None:
    """Ctrl-C: 130, and the results so far."""
    arguments = ["simulate", "--learners", "5", "--rounds", "100000", "--out", "r.json"]
    with driver(arguments, tmp_path) as running:
        running.until("round 2/")
        running.interrupt(signal.SIGINT)
        status, said = running.rest()
    assert status == 130
    assert "Traceback" not in said
    assert json.loads((tmp_path / "r.json").read_text())["run"]["state"] == "stopped"


@pytest.mark.parametrize("spec", ["nonsense", "no_such_module:x", "learner_agent.digits:nothing", "json:dumps"])
def test_factory_that_makes_no_learner_is_2(tmp_path: Path, spec: str) -> None:
    """The message names it and shows an example or the reason."""
    done = metis("simulate", "--learners", "2", "--learner", spec, cwd=tmp_path)
    assert done.returncode == 2
    assert spec in done.stderr
    assert "Traceback" not in done.stderr


def test_bench_measures_every_timing(tmp_path: Path) -> None:
    """The warm-up does not count; the controller's cost is there; nothing is left in the folder."""
    done = metis("bench", "--learners", "3", "--params", "1000", "--rounds", "4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert set(measured["timings_ms"]) == set(m.Timings.model_fields)
    assert all(0 <= s["min"] <= s["median"] <= s["max"] for s in measured["timings_ms"].values())
    assert measured["controller"]["cpu_s"] > 0
    assert list(tmp_path.iterdir()) == []
    text = metis("bench", "--learners", "2", "--params", "1000", "--rounds", "2", cwd=tmp_path)
    assert "federation_round" in text.stdout
