"""Agents in runs that ask for less on the wire: together with strangers that can do none of it, in either worker."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from numpy.typing import NDArray

from learner_agent import Learner
from learner_agent.agent import Agent, LearnerProcess, poll
from services import messages as m
from services.weights import wire
from tests.conftest import InProcess, until
from tests.controller_api.driving import Member, document, join
from tests.learner_agent.agents import Line, agent_of, run_to_end, running

COUNT = 300  # elements: 1,200 bytes, worth coding
ENCODINGS = [
    *({"up": up} for up in ("none", "bf16", "int8")),
    *({"down": down} for down in ("bf16", "int8")),
    {"up": "int8", "down": "int8"},
    {"up": "bf16", "down": "int8"},
]
PROBLEM = {"type": "/errors/invalid-update", "title": "", "status": 422, "detail": "not this one", "retryable": False}
IS_PROBLEM = {"Content-Type": "application/problem+json"}
QUARTER = {"up": "topk", "topk_ratio": 0.25}  # 75 elements


class Steps(Learner):
    """Adds 1 to every element of a (300,) float32, in the memory that it is given."""

    names = ("w",)

    def get_weights(self) -> list[NDArray[Any]]:
        """Zeros."""
        return [np.zeros(COUNT, np.float32)]

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """Nothing is kept."""

    def train(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """One row."""
        weights[0] += 1
        return weights, {}, {"num_training_examples": 1}

    def evaluate(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """The first element."""
        return {"first": weights[0][0]}


async def stranger(member: Member) -> None:
    """A learner that knows the plain protocol only, and does what `Steps` does, until it is ended."""
    while True:
        answer = await member.call("GET", f"{member.path}/task", params={"wait": 5})
        if answer.status_code != 200:
            continue
        task = answer.json()
        if task["kind"] == "init":
            await member.put(task, document({**plain(np.zeros(COUNT, "<f4"))}))
            continue
        body = (await member.call("GET", f"/v1/models/{task['model']['digest']}")).content
        weights = np.frombuffer(msgpack.unpackb(body)["tensors"][0]["data"], "<f4")
        if task["kind"] == "train":
            await member.put(task, document(plain(weights + 1), examples=1))
        else:
            await member.score(task, first=float(weights[0]))


def plain(array: NDArray[Any]) -> dict[str, Any]:
    """Tensor "w"."""
    return {"name": "w", "dtype": "float32", "shape": [COUNT], "data": array.astype("<f4").tobytes()}


async def together(controller: InProcess, encoding: dict[str, Any], *agents: Agent, rounds: int = 2) -> m.Results:
    """Run the agents and a stranger to the end of the rounds."""
    member = await join(controller.http, "stranger")
    async with running(*agents), asyncio.TaskGroup() as group:
        foreign = group.create_task(stranger(member))
        config = {"min_learners": 1 + len(agents), "termination": {"federation_rounds": rounds}, "encoding": encoding}
        results = await run_to_end(controller, config)
        foreign.cancel()
    assert results.run.state == "completed", results.run.reason
    assert [sorted(one.failed) for one in results.rounds] == [[]] * rounds
    return results


async def weights_of(controller: InProcess) -> NDArray[Any]:
    """The final model's "w"."""
    return wire.decode(await controller.client().run_model()).arrays[0]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
async def test_a_mixed_federation_trains_one_model(controller: InProcess, encoding: dict[str, str]) -> None:
    """Two agents that code and a stranger that cannot: 1 and 1 make 2, within what the codec may err."""
    agents = [agent_of(Steps(), Line(controller.app), name) for name in ("anna", "ben")]
    results = await together(controller, encoding, *agents)
    assert await weights_of(controller) == pytest.approx(np.full(COUNT, 2.0), rel=1e-6)
    scores = results.rounds[-1].evaluation_metrics.learners
    assert {name: one["first"] for name, one in scores.items()} == {
        name: pytest.approx(2, rel=1e-6) for name in ("anna", "ben", "stranger")
    }
    moved, whole = results.rounds[-1].bytes.up / 3, COUNT * 4
    smaller = {"none": 1.0, "bf16": (1 + 2 * 0.5) / 3, "int8": (1 + 2 * 0.25) / 3}[encoding.get("up", "none")]
    assert smaller * whole < moved < smaller * whole + 300


async def test_sparse_updates_carry_what_the_last_ones_left_out(controller: InProcess) -> None:
    """Agents send 75 of 300 ones in round 1, the lowest; then the next 75, of which two are owed by now.

    Round 1 makes 1 where all three sent and 1/3 else; round 2 adds (1 + 2 + 2) / 3 to the next 75 and 1/3 else.
    """
    agents = [agent_of(Steps(), Line(controller.app), name) for name in ("anna", "ben")]
    results = await together(controller, QUARTER, *agents)
    expected = np.repeat([4 / 3, 2, 2 / 3, 2 / 3], 75)
    assert await weights_of(controller) == pytest.approx(expected, rel=1e-6)
    assert results.rounds[-1].bytes.up < 2 * 75 * 8 + COUNT * 4 + 600


async def test_an_update_that_was_refused_is_owed(controller: InProcess) -> None:
    """Round 1 counts without it; in round 2 the 75 lowest are still the largest: two each.

    Round 1: 1, by the stranger alone. Round 2: (1 + 2) / 2 more on the first 75, 1/2 else.
    """
    line, refusals = Line(controller.app), iter([httpx.Response(422, json=PROBLEM, headers=IS_PROBLEM)])

    def refuse_once(request: httpx.Request) -> httpx.Response | None:
        is_update = request.method == "PUT" and request.headers["content-type"] == wire.MEDIA_TYPE
        return next(refusals, None) if is_update and controller.app.state.runtime.federation.active.round else None

    line.instead = refuse_once
    member = await join(controller.http, "stranger")
    async with running(agent_of(Steps(), line)), asyncio.TaskGroup() as group:
        foreign = group.create_task(stranger(member))
        termination = {"federation_rounds": 2}
        results = await run_to_end(
            controller, {"min_learners": 2, "termination": termination, "encoding": QUARTER, "seed": 1}
        )
        foreign.cancel()
    assert [sorted(one.failed) for one in results.rounds] == [["anna"], []]
    assert await weights_of(controller) == pytest.approx(np.repeat([2.5, 1.5, 1.5, 1.5], 75), rel=1e-6)


async def test_nothing_is_owed_to_another_run(controller: InProcess) -> None:
    """What the last run did not get is not of the next one's model."""
    agent = agent_of(Steps(), Line(controller.app))
    async with running(agent):
        for _ in range(2):
            await run_to_end(controller, {"termination": {"federation_rounds": 1}, "encoding": QUARTER})
            assert (await weights_of(controller)).tolist() == np.repeat([1, 0, 0, 0], 75).tolist()


@pytest.mark.parametrize("encoding", [{"up": "int8", "down": "bf16"}, QUARTER], ids=str)
async def test_a_learner_in_a_process_of_its_own_codes_as_well(
    controller: InProcess, encoding: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent codes what the process sends back; the same model comes of it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with contextlib.closing(LearnerProcess(f"{__name__}:Steps")) as work:
        client = Line(controller.app)
        agent = agent_of(Steps(), client, "here")
        other = Agent(work, controller.client(), poll, m.JoinRequest(name="there"))
        await together(controller, encoding, agent, other)
    expected = np.repeat([4 / 3, 2, 2 / 3, 2 / 3], 75) if encoding == QUARTER else np.full(COUNT, 2)
    assert await weights_of(controller) == pytest.approx(expected, rel=1e-6)


async def test_a_coarse_model_is_downloaded_once(controller: InProcess) -> None:
    """To evaluate and to train again: it is kept by its own digest."""
    line = Line(controller.app)
    async with running(agent_of(Steps(), line)):
        await run_to_end(controller, {"termination": {"federation_rounds": 3}, "encoding": {"down": "int8"}})
    assert line.count("GET", "/v1/models/") == 4  # model 0 to 3


async def test_an_agent_says_what_it_can_do(controller: InProcess) -> None:
    """It enrols with every encoding; so a federation needs no more than the run's word."""
    async with running(agent_of(Steps(), Line(controller.app))):
        roster = controller.app.state.runtime.federation.roster

        async def enrolled() -> Any:
            return roster.holder("anna")

        member = await until(enrolled)
        assert member.request.encodings == ["none", "bf16", "int8", "topk"]
