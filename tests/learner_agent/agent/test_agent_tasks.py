"""The agent and its tasks, against the real app: what is delivered, what is reported, what is not done twice."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from services import messages as m
from tests.conftest import InProcess, until
from tests.learner_agent.agents import ONE_ROUND, AddsOne, Line, agent_of, run_to_end, running


@pytest.fixture
def line(controller: InProcess) -> Line:
    """The way to it."""
    return Line(controller.app)


def train_task(results: m.Results, learner: str = "anna") -> m.TaskRecord:
    """The first train task of a learner."""
    return next(task for task in results.tasks if task.kind == "train" and task.learner == learner)


async def test_a_run_is_done_and_its_model_is_what_was_trained(controller: InProcess, line: Line) -> None:
    """Zeros, then 1 by the first round and 2 by the second; both evaluated."""
    learner = AddsOne()
    async with running(agent_of(learner, line)):
        results = await run_to_end(controller, {"termination": {"federation_rounds": 2}})
    assert [one.evaluation_metrics.combined for one in results.rounds] == [{"score": 1.0}, {"score": 2.0}]
    assert learner.calls == ["get_weights", "set_weights", "train", "evaluate", "train", "evaluate"]


async def test_a_model_is_downloaded_once(controller: InProcess, line: Line) -> None:
    """Model 1 is evaluated and then trained from: with model 0 and the last, three models, three downloads."""
    async with running(agent_of(AddsOne(), line)):
        await run_to_end(controller, {"termination": {"federation_rounds": 2}})
    assert line.count("GET", "/v1/models/") == 3


async def test_a_result_whose_reply_was_lost_is_sent_again_without_training(controller: InProcess, line: Line) -> None:
    """The controller took it; the agent cannot know, sends the same, and the update counts once."""
    lost: list[str] = []

    def first_results(request: httpx.Request) -> bool:
        if request.method == "PUT" and request.url.path not in lost:
            lost.append(request.url.path)
            return True
        return False

    line.loses = first_results
    learner = AddsOne()
    async with running(agent_of(learner, line)):
        results = await run_to_end(controller, ONE_ROUND)
    assert len(lost) == 3  # initial weights, update and scores
    assert (line.count("PUT", "/result"), line.count("PUT", "/scores")) == (4, 2)
    assert learner.calls == ["get_weights", "set_weights", "train", "evaluate"]
    assert results.rounds[0].completed == ["anna"]
    assert results.rounds[0].evaluation_metrics.combined == {"score": 1.0}


async def test_a_task_whose_offer_was_lost_is_offered_again(controller: InProcess, line: Line) -> None:
    """The reply of the poll is lost: the next poll brings the same task, and it is done once."""
    lost: list[bytes] = []

    def first_task(request: httpx.Request) -> bool:
        if request.url.path.endswith("/task") and not lost and controller.app.state.runtime.federation.active:
            lost.append(request.url.query)
            return True
        return False

    line.loses = first_task
    learner = AddsOne()
    async with running(agent_of(learner, line)):
        await run_to_end(controller, ONE_ROUND)
    assert lost
    assert learner.calls == ["get_weights", "set_weights", "train", "evaluate"]


async def test_a_proxy_that_misses_its_controller_costs_no_training(controller: InProcess, line: Line) -> None:
    """Each call after the enrolment is answered by somebody's page first: it is repeated."""
    told: set[tuple[str, str]] = set()

    def page(request: httpx.Request) -> httpx.Response | None:
        call = (request.method, request.url.path)
        if request.url.path == "/v1/learners" or call in told:
            return None
        told.add(call)
        return httpx.Response(404, html="<h1>default backend</h1>")

    line.instead = page
    learner = AddsOne()
    async with running(agent_of(learner, line)):
        results = await run_to_end(controller, ONE_ROUND)
        assert len(told) == 7  # polls, two models, three results, and whether the controller is there
    assert results.run.state == "completed"
    assert learner.calls == ["get_weights", "set_weights", "train", "evaluate"]


# ---- failures
async def test_a_failing_train_is_reported_and_the_learner_goes_on(controller: InProcess, line: Line) -> None:
    """In a line, its traceback in the results; the round closes with the other's update, the next has both again."""

    def fails_at_first(config: dict[str, Any]) -> None:
        if config["round"] == 1:
            raise ValueError("the rows of shard 7 are gone")

    async with running(agent_of(AddsOne(during=fails_at_first), line), agent_of(AddsOne(), line, "bert")):
        results = await run_to_end(controller, {"min_learners": 2, "termination": {"federation_rounds": 2}})
    assert [one.completed for one in results.rounds] == [["bert"], ["anna", "bert"]]
    (task,) = [task for task in results.tasks if task.state == "failed"]
    assert results.rounds[0].failed == {"anna": task.reason}
    assert (task.reason or "").startswith("ValueError: the rows of shard 7 are gone (test_agent_tasks.py:")
    assert (task.traceback or "").splitlines()[-1] == "ValueError: the rows of shard 7 are gone"


async def test_a_failing_evaluate_is_reported_too(controller: InProcess, line: Line) -> None:
    """The round has no scores of it, and the run completes."""

    class CannotScore(AddsOne):
        def evaluate(self, weights: Any, config: dict[str, Any]) -> Any:
            raise RuntimeError("no test rows")

    async with running(agent_of(CannotScore(), line)):
        results = await run_to_end(controller, ONE_ROUND)
    assert results.run.state == "completed"
    assert results.rounds[0].evaluation_metrics.learners == {}
    task = next(task for task in results.tasks if task.kind == "evaluate")
    assert (task.reason or "").startswith("RuntimeError: no test rows (test_agent_tasks.py:")
    assert (task.traceback or "").endswith("RuntimeError: no test rows")


async def test_what_train_may_not_return_is_reported_in_a_line(controller: InProcess, line: Line) -> None:
    """The user's mistake, without a traceback through the agent."""

    class ReturnsWeightsAlone(AddsOne):
        def train(self, weights: Any, config: dict[str, Any]) -> Any:
            return weights

    async with running(agent_of(ReturnsWeightsAlone(), line)):
        results = await run_to_end(controller, ONE_ROUND)
    assert results.run.state == "failed"
    expected = "invalid-update: train() must return (weights, metrics, metadata) or (weights, metrics)"
    assert train_task(results).reason == expected


@pytest.mark.parametrize(
    ("update", "says"),
    [
        ([np.zeros(2, np.float64), np.zeros((), np.float32)], "tensor 'a': expected dtype float32, got float64"),
        ([np.zeros(3, np.float32), np.zeros((), np.float32)], "tensor 'a': expected shape [2], got [3]"),
        ([np.array([1, np.nan], np.float32), np.zeros((), np.float32)], "tensor 'a' holds NaN or infinity"),
    ],
    ids=["dtype", "shape", "NaN"],
)
async def test_an_update_that_the_controller_refuses_is_a_failure_and_the_round_goes_on(
    controller: InProcess, line: Line, update: Any, says: str
) -> None:
    """In the controller's words; the other learner's update makes the model."""

    class SendsAnother(AddsOne):
        def train(self, weights: Any, config: dict[str, Any]) -> Any:
            return update, {}, {"num_training_examples": 10}

    async with running(agent_of(SendsAnother(), line), agent_of(AddsOne(), line, "bert")):
        results = await run_to_end(controller, ONE_ROUND | {"min_learners": 2})
    assert results.run.state == "completed"
    assert results.rounds[0].completed == ["bert"]
    assert says in results.rounds[0].failed["anna"]


async def test_a_task_of_an_unknown_kind_is_refused(controller: InProcess, line: Line) -> None:
    """`unsupported-task`, so that a newer controller can ask for something new."""
    runtime = controller.app.state.runtime
    async with running(agent_of(AddsOne(), line)):
        run = await controller.client().start_run(ONE_ROUND | {"min_learners": 2})
        await until(controller.client().learners)
        member = runtime.federation.roster.holder("anna")
        offer = runtime.federation.offers.offer(run.id, 0, "sing", member, None, runtime.now, runtime.now + 60)
        await controller.client().heartbeat(member.id)  # any change passes on what was offered

        async def refused() -> bool:
            return bool(offer.state == "failed")

        await until(refused)
    assert offer.reason == "unsupported-task"
