"""One thread for torch where several learners share a process, unless the user chose; the log says how many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from learner_agent.agent import LearnerAtWork, limit_threads
from tests.learner_agent.agent.test_tasks import model, task
from tests.learner_agent.agents import AddsOne

torch = pytest.importorskip("torch")


def threads_after(program: str, **environment: str) -> int:
    """What torch says in a fresh process, at the end of this program."""
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    program = f"from learner_agent.agent.threads import limit_threads\n{program}\nprint(torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean | environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout)


def test_torch_that_is_imported_later_computes_on_one_thread() -> None:
    """Inside a learner's train(), say."""
    assert threads_after("limit_threads()\nimport torch") == 1


def test_the_users_number_stays_when_torch_comes_later() -> None:
    """OMP_NUM_THREADS."""
    assert threads_after("limit_threads()\nimport torch", OMP_NUM_THREADS="2") == 2


def test_torch_that_is_there_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default becomes one; a number of the user's, by the environment or by torch's own call, stays."""
    import learner_agent.pytorch

    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(learner_agent.pytorch, "DEFAULT_THREADS", 6)
    try:
        torch.set_num_threads(6)
        limit_threads()
        assert torch.get_num_threads() == 1
        torch.set_num_threads(3)
        limit_threads()
        assert torch.get_num_threads() == 3
        torch.set_num_threads(6)
        monkeypatch.setenv("MKL_NUM_THREADS", "6")
        limit_threads()
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_the_log_says_on_how_many_threads_torch_computes() -> None:
    """Once, whatever the number is: an agent leaves it to torch, a program of several learners does not."""
    work = LearnerAtWork(AddsOne())
    with structlog.testing.capture_logs() as told:
        for _ in range(2):
            work.train(model(), task())
    (line,) = [one for one in told if one["event"] == "torch computes on threads"]
    assert (line["threads"], line["change"][:18]) == (torch.get_num_threads(), "set OMP_NUM_THREAD")
