"""`metis simulate`: a federation in one process."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from ..processes import driver, metis

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
