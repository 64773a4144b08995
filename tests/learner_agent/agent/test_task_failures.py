"""A task that failed: what the agent tells of it, to whom, and what it keeps to itself."""

from __future__ import annotations

import gc
import json
import re
import sys
import types
import weakref
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from learner_agent.agent.task_report import LearnerFailed, TaskReport, current, progress, reason_of, told
from learner_agent.agent.tasks import _arrays
from learner_agent.membership import Membership
from services import messages as m
from services.errors import FederationError, FederationOver, InvalidUpdate, TaskVoid, Unauthenticated
from tests.conftest import InProcess
from tests.learner_agent.agents import ONE_ROUND, AddsOne, Line, agent_of, run_to_end, running

HERE = Path(__file__).name
DO = {**ONE_ROUND, "train": {"value": "x"}, "schedule": {"max_failed_rounds": 1}}


def parse(config: dict[str, Any]) -> None:
    """Fails in the standard library."""
    json.loads(config["value"])


def exits(config: dict[str, Any]) -> None:
    """Ends the program, it thinks."""
    sys.exit("no accelerator")


async def failed(controller: InProcess, during: Callable[[dict[str, Any]], Any], **settings: Any) -> m.TaskRecord:
    """The train task of a learner that fails in it, as the results have it."""
    async with running(agent_of(AddsOne(during), Line(controller.app), **settings)):
        results = await run_to_end(controller, DO)
    (task,) = [one for one in results.tasks if one.kind == "train"]
    assert task.state == "failed"
    return task


# ---- what is told
async def test_the_line_names_the_place_in_the_users_code(controller: InProcess) -> None:
    """Not that of the library that raised, nor that of the agent; the traceback begins where the learner was called."""
    task = await failed(controller, parse)
    line = rf"JSONDecodeError: Expecting value: .* \({re.escape(HERE)}:\d+ in parse\)"
    assert re.fullmatch(line, task.reason or ""), task.reason
    lines = (task.traceback or "").splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in train")
    assert "decoder.py" in lines[-2] or "decoder.py" in (task.traceback or "")
    assert not [one for one in lines if "learner_agent/agent" in one and "tests" not in one]


async def test_sys_exit_is_told_like_an_error(controller: InProcess) -> None:
    """The task fails, the agent goes on."""
    task = await failed(controller, exits)
    assert re.fullmatch(rf"SystemExit: no accelerator \({re.escape(HERE)}:\d+ in exits\)", task.reason or "")


async def test_a_site_keeps_the_traceback(controller: InProcess) -> None:
    """METIS_REPORT=message: one line."""
    task = await failed(controller, parse, tells_traceback=False)
    assert (task.reason or "").startswith("JSONDecodeError: Expecting value")
    assert task.traceback is None


def test_what_is_told_is_one_of_two() -> None:
    """Another word is refused before anything is told."""
    assert Membership("http://c", report="message").report == "message"
    with pytest.raises(ValueError, match="METIS_REPORT is traceback or message, not 'all'"):
        Membership("http://c", report="all")


async def test_a_controller_that_refuses_the_key_is_told_the_line(controller: InProcess) -> None:
    """One of 0.1: 422, as for every key that it does not know."""
    line = Line(controller.app)
    refused: list[str] = []

    def old(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/failure") or b'"traceback"' not in request.content:
            return None
        refused.append(request.url.path)
        body = {
            "type": "/errors/invalid-request",
            "title": "The request has wrong keys or values",
            "status": 422,
            "detail": "traceback: Extra inputs are not permitted",
            "retryable": False,
        }
        return httpx.Response(422, json=body, headers={"Content-Type": "application/problem+json"}, request=request)

    line.before, line.instead = httpx.Request.aread, old
    async with running(agent_of(AddsOne(parse), line)):
        results = await run_to_end(controller, DO)
    (task,) = [one for one in results.tasks if one.kind == "train"]
    assert len(refused) == 1
    assert (task.reason or "").startswith("JSONDecodeError: Expecting value")
    assert task.traceback is None


async def test_a_message_that_is_long_or_cannot_be_sent_is_told(controller: InProcess) -> None:
    """A megabyte without a blank, and half of a character: no wait, no 422."""

    def during(config: dict[str, Any]) -> None:
        raise ValueError("x" * 1_000_000 + "\ud800")

    task = await failed(controller, during)
    assert re.fullmatch(rf"ValueError: x+… \({re.escape(HERE)}:\d+ in during\)", task.reason or "")
    assert (task.traceback or "").endswith("xx…")


# ---- what is kept
def test_nothing_of_the_learner_is_held_by_what_is_told() -> None:
    """Frames, and the data in them, go with the thread's call."""

    class Patients:
        """Private."""

    held: list[weakref.ref[Patients]] = []

    def train() -> None:
        patients = Patients()
        held.append(weakref.ref(patients))
        raise ValueError("no rows")

    with pytest.raises(LearnerFailed) as raised:
        told(train)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    gc.collect()
    assert held[0]() is None
    assert reason_of(raised.value) == (str(raised.value), raised.value.traceback)


def test_what_is_told_already_passes() -> None:
    """What the agent itself finds wrong is handled by its kind, and so is a task that is no longer wanted."""
    with pytest.raises(InvalidUpdate, match="must give a list"):
        told(_arrays, 5, "train()")
    report = TaskReport()
    report.void = "over"
    context = copy_context()
    context.run(current.set, report)
    with pytest.raises(TaskVoid, match="over"):
        context.run(told, progress)

    def train() -> None:
        raise LearnerFailed("x", "y")

    with pytest.raises(LearnerFailed, match="x"):
        told(train)


@pytest.mark.parametrize("error", [InvalidUpdate, Unauthenticated, FederationOver, TaskVoid])
def test_an_error_of_the_learners_own_client_is_its_tasks_failure(error: type[FederationError]) -> None:
    """Its code may drive a federation below this one: that this is over ends nothing here."""

    def train() -> None:
        raise error("of the federation below")

    with pytest.raises(LearnerFailed, match=f"{error.__name__}: of the federation below") as raised:
        told(train)
    assert "in train" in str(raised.value)


@pytest.mark.parametrize("number", ["three", None, float("nan"), [1], np.array([1, 2]), object(), 10**400])
def test_progress_ends_no_training(number: Any) -> None:
    """Whatever it is given; what is a number is told."""
    report = TaskReport()
    context = copy_context()
    context.run(current.set, report)
    three: Any = np.int64(3)
    context.run(progress, epoch=number, batch=three, loss=number)
    assert report.latest == m.Progress(batch=3)


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("clinic/learner.py", "learner.py:2 in train"),
        ("clinic/.venv/lib/python3/site-packages/clinic/learner.py", "learner.py:2 in train"),
        (f"{Path(json.__file__).parent}/patients.py", "learner.py:1 in train"),
    ],
)
def test_places_by_file(file: str, place: str) -> None:
    """A learner that is installed is its own code all the same; what it calls in the standard library is not."""
    frame, called = Path(file).name == "patients.py", types.ModuleType("clinic.learner")
    source = "def train():\n    raise ValueError\n"
    made = compile(source, file, "exec")
    vars(called)["__name__"] = "json" if frame else "clinic.learner"
    exec(made, vars(called))
    if frame:
        outer = types.ModuleType("learner")
        vars(outer)["inner"] = vars(called)["train"]
        exec(compile("def train(): inner()", "clinic/learner.py", "exec"), vars(outer))
        called = outer
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        vars(called)["train"]()
    trace = raised.value.__traceback__
    assert trace
    raised.value.__traceback__ = trace.tb_next
    assert reason_of(raised.value).line == f"ValueError ({place})"
