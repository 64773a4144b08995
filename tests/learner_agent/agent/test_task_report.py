"""`progress()`: how far a task is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from learner_agent import progress
from learner_agent.agent.task_report import TaskReport, current
from services import messages as m
from services.errors import TaskVoid


@pytest.fixture
def report() -> Iterator[TaskReport]:
    """Of the task at hand."""
    made = TaskReport()
    token = current.set(made)
    yield made
    current.reset(token)


def test_outside_a_task_progress_does_nothing() -> None:
    """A train() that is called by hand, in a notebook say, works."""
    progress(epoch=1, batch=2, loss=0.5)


def test_the_latest_progress_is_kept(report: TaskReport) -> None:
    """What is not told is absent."""
    progress(epoch=1, batch=2, loss=0.5)
    progress(batch=3)
    assert report.latest == m.Progress(batch=3)


def test_numpys_numbers_are_numbers(report: TaskReport) -> None:
    """A batch counted by numpy, a loss in float32."""
    counts: dict[str, Any] = {"epoch": np.int64(1), "batch": np.int32(2), "loss": np.float32(0.5)}
    progress(**counts)
    assert report.latest == m.Progress(epoch=1, batch=2, loss=0.5)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_absent(report: TaskReport, loss: float) -> None:
    """It cannot be shown, and must not end the training."""
    progress(epoch=1, loss=loss)
    assert report.latest == m.Progress(epoch=1)


def test_progress_raises_when_the_task_is_void(report: TaskReport) -> None:
    """With the controller's words."""
    report.void = "the round has closed"
    with pytest.raises(TaskVoid, match="the round has closed"):
        progress(epoch=1)
    assert report.latest is None
