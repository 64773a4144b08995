"""A learner in a process of its own: the same results, and what happens when either side ends."""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from learner_agent.agent import LearnerAtWork, LearnerFailed, LearnerProcess
from learner_agent.agent.task_report import TaskReport, current
from services import messages as m
from services.errors import InvalidUpdate, TaskVoid
from services.weights import Document, Tensor, wire
from tests.learner_agent.agent.test_tasks import document, task
from tests.learner_agent.scripted_learner import Pupil

HERE = Path(__file__).parents[3]
PUPIL = "tests.learner_agent.scripted_learner:Pupil"
MODEL = Document((Tensor("w", np.array([4], np.float32)),))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def learner() -> Iterator[LearnerProcess]:
    """A pupil in its process."""
    with contextlib.closing(LearnerProcess(PUPIL)) as made:
        yield made


# ---- calls
def test_results_are_those_of_a_learner_in_this_process(learner: LearnerProcess) -> None:
    """Initial weights, update and scores; NaN and numpy's scalars included."""
    here = LearnerAtWork(Pupil())
    assert document(learner.initial()).tensors[0].array.tolist() == [0]
    theirs, ours = document(learner.train(MODEL, task())), document(here.train(MODEL, task()))
    assert [(t.name, t.array.dtype.name, t.array.tolist()) for t in theirs.tensors] == [("w", "float32", [5])]
    assert theirs.metrics == ours.metrics == {"loss": 0.5, "nothing": None}
    assert theirs.metadata == ours.metadata | {"pid": learner.pid}
    expected = m.EvaluationResult(metrics={"score": 4.0}, metadata={"num_evaluation_examples": 3.0})
    assert learner.evaluate(MODEL, task("evaluate")) == expected


def test_the_learner_lives_in_one_process_for_all_its_tasks(learner: LearnerProcess) -> None:
    """What it keeps between tasks (an optimizer's state, say) is kept."""
    told = [document(learner.train(MODEL, task())).metadata for _ in range(3)]
    assert [(one["pid"], one["times"]) for one in told] == [(learner.pid, 1), (learner.pid, 2), (learner.pid, 3)]
    assert learner.pid != os.getpid()


def test_a_large_model_crosses(learner: LearnerProcess) -> None:
    """8 MB in both directions: more than a pipe holds."""
    values = np.arange(2_000_000, dtype=np.float32)
    update = document(learner.train(Document((Tensor("w", values),)), task()))
    assert np.array_equal(update.tensors[0].array, values + 1)


def test_what_the_learner_prints_disturbs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """It appears on standard error."""
    with contextlib.closing(LearnerProcess(PUPIL)) as learner:
        assert document(learner.train(MODEL, task(do="print"))).tensors[0].array.tolist() == [5]
        assert capfd.readouterr() == ("", "one two three\n")


def test_what_the_learner_raises_comes_with_its_traceback(learner: LearnerProcess) -> None:
    """And the process goes on."""
    with pytest.raises(LearnerFailed) as raised:
        learner.train(MODEL, task(do="fail"))
    told, traceback = str(raised.value), (raised.value.traceback or "").splitlines()
    assert re.fullmatch(r"ValueError: the rows of shard 7 are gone \(scripted_learner\.py:\d+ in fail\)", told), told
    assert (traceback[0], traceback[-1]) == ("Traceback (most recent call last):", told.partition(" (")[0])
    assert "in train" in traceback[1]
    assert document(learner.train(MODEL, task())).metadata["pid"] == learner.pid


def test_sys_exit_in_train_fails_the_task_alone(learner: LearnerProcess) -> None:
    """The process goes on."""
    with pytest.raises(LearnerFailed, match="SystemExit: no accelerator"):
        learner.train(MODEL, task(do="exit"))
    assert document(learner.train(MODEL, task())).metadata["times"] == 2


def test_what_train_may_not_return_is_the_same_error() -> None:
    """InvalidUpdate, so that the agent reports a line and no traceback."""
    with (
        contextlib.closing(LearnerProcess(PUPIL)) as learner,
        pytest.raises(InvalidUpdate, match=r"train\(\) returned 1 arrays; the model has 2 tensors"),
    ):
        learner.train(Document((*MODEL.tensors, Tensor("b", np.zeros(1)))), task())


def test_progress_is_seen_here_and_void_is_heard_there(learner: LearnerProcess, tmp_path: Path) -> None:
    """The report of the task at hand is filled; once it is void, progress() raises TaskVoid in the other process."""
    report, raised = TaskReport(), []

    def train() -> None:
        current.set(report)
        try:
            learner.train(MODEL, task(do="wait", until=str(tmp_path / "never")))
        except TaskVoid as error:
            raised.append(error.detail)

    work = threading.Thread(target=contextvars.copy_context().run, args=(train,))
    work.start()
    deadline = time.monotonic() + 20
    while report.latest is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert report.latest == m.Progress(epoch=1, batch=2, loss=0.25)
    report.void = "the round has closed"
    work.join(20)
    assert raised == ["the round has closed"]
    assert document(learner.train(MODEL, task())).metadata["times"] == 2


def test_a_process_that_dies_is_started_anew(learner: LearnerProcess, tmp_path: Path) -> None:
    """The task fails, saying how it ended; the next one is done by a new process with a new learner."""
    first = learner.pid
    with pytest.raises(ChildProcessError, match="the learner's process ended with status -9"):
        learner.train(MODEL, task(do="die", once=str(tmp_path / "once")))
    told = document(learner.train(MODEL, task())).metadata
    assert (told["pid"], told["times"]) == (learner.pid, 1)
    assert learner.pid != first


def test_one_that_died_between_tasks_is_started_anew(learner: LearnerProcess) -> None:
    """Nobody notices: no task was under way."""
    os.kill(learner.pid, signal.SIGKILL)
    os.waitid(os.P_PID, learner.pid, os.WEXITED | os.WNOWAIT)
    assert document(learner.train(MODEL, task())).metadata["times"] == 1


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("learner", LearnerFailed, "write it as module:factory"),
        ("tests.learner_agent.scripted_learner:nobody", LearnerFailed, "."),  # the words of Python's import
        (
            "tests.learner_agent.scripted_learner:no_learner",
            LearnerFailed,
            "object is no learner: it lacks get_weights",
        ),
        ("tests.learner_agent.scripted_learner:broken", LearnerFailed, "METIS_SHARD must be a whole number"),
        ("tests.learner_agent.scripted_learner:exits", ChildProcessError, "ended with status 3"),
    ],
)
def test_a_learner_that_cannot_be_made_is_told_at_the_start(spec: str, error: type[Exception], says: str) -> None:
    """In the words of what went wrong."""
    with pytest.raises(error, match=says):
        LearnerProcess(spec)


def test_closing_ends_a_process_in_the_midst_of_training(learner: LearnerProcess, tmp_path: Path) -> None:
    """Promptly."""
    raised: list[BaseException] = []

    def train() -> None:
        try:
            learner.train(MODEL, task(do="wait", until=str(tmp_path / "never"), quiet=True))
        except ChildProcessError as error:
            raised.append(error)

    work = threading.Thread(target=train)
    work.start()
    for _ in range(50):  # one that has not begun yet begins in a new process
        learner.close()
        work.join(0.2)
        if not work.is_alive():
            break
    assert len(raised) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(learner.pid, 0)


def test_a_document_crosses_as_it_is() -> None:
    """What a process answers is what it would send over HTTP."""
    with contextlib.closing(LearnerProcess(PUPIL)) as learner:
        (body,) = learner.train(MODEL, task())
    assert wire.decode(body).metadata["num_training_examples"] == 10
