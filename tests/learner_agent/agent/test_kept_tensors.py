"""What a learner holds of its own in a run: of what it sent, what the controller counted; also over a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import structlog

from learner_agent.agent.kept_tensors import OwnExtras
from services import messages as m
from services.weights import Tensor
from tests.learner_agent.agent.test_tasks import task

GIVEN = {"control": [Tensor("w", np.zeros(2, np.float32))]}


def of_round(number: int, counted: int | None, run_id: str = "run") -> m.Task:
    """A task of this round; the controller counted the learner's update of that one."""
    return task(run_id=run_id, last_counted=counted).model_copy(update={"round": number})


def held(own: OwnExtras, one: m.Task) -> list[float]:
    """As the task begins."""
    (tensor,) = own.of(one, GIVEN)["control"]
    assert tensor.name == "w"
    return list(tensor.array.tolist())


def send(own: OwnExtras, one: m.Task, *values: float) -> None:
    """These differences."""
    own.send(one, {"control": [Tensor("w", np.array(values, np.float32))]})


def played(file: Path | None, restarts: bool) -> list[list[float]]:
    """Three rounds, of which the second is not counted; then another run."""
    own, seen = OwnExtras(file), []
    for number, counted, run_id in ((1, None, "run"), (2, 1, "run"), (3, 1, "run"), (4, 3, "run"), (1, None, "b")):
        if restarts:
            own = OwnExtras(file)
        one = of_round(number, counted, run_id)
        seen.append(held(own, one))
        assert held(own, one) == seen[-1]  # the task is begun again
        send(own, one, 1.0, number)
    return seen


def test_what_is_counted_adds_up() -> None:
    """Round 2 was not: what it sent is no part of it. A new run begins with zeros."""
    assert played(None, restarts=False) == [[0, 0], [1, 1], [1, 1], [2, 4], [0, 0]]


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """Before each task; the file is its user's alone."""
    file = tmp_path / "a.own"
    assert played(file, restarts=True) == played(None, restarts=False)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_learner_of_which_nothing_is_counted_begins_anew(tmp_path: Path) -> None:
    """It enrolled again, and is another one for the controller; what is lost is told."""
    own = OwnExtras(tmp_path / "a.own")
    held(own, of_round(1, None))
    send(own, of_round(1, None), 1.0, 1.0)
    assert held(OwnExtras(tmp_path / "a.own"), of_round(2, None)) == [0, 0]
    (tmp_path / "a.own").write_bytes(b"no document")
    with structlog.testing.capture_logs() as told:
        assert held(OwnExtras(tmp_path / "a.own"), of_round(3, 2)) == [0, 0]
    assert told[0]["event"] == "what this learner held in the run is lost"
