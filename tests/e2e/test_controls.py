"""SCAFFOLD end to end: real agents through the real app, all models and controls as the paper has them."""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner_agent.agent import StateFile
from services import ModelStoreConfig
from services import messages as m
from services.weights import wire
from tests.conftest import InProcess, in_process, until
from tests.learner_agent.agents import Line, agent_of, ended, run_to_end, running
from tests.learner_agent.quadratics import Array, Descends, Paper, Parabola, optimum, some

ROUNDS = 6


def configured(**more: Any) -> dict[str, Any]:
    """A run of some rounds."""
    return {"algorithm": "SCAFFOLD", "termination": {"federation_rounds": ROUNDS}, **more}


async def enrolled(controller: InProcess, count: int) -> None:
    """So many learners are here."""

    async def here() -> bool:
        return len(await controller.client().learners()) == count

    await until(here)


async def played(learners: list[Descends], config: dict[str, Any]) -> tuple[m.Results, Array]:
    """The results of a run of these learners, and the final point."""
    async with in_process(store=ModelStoreConfig("InMemory", 1)) as controller:
        agents = [agent_of(one, Line(controller.app), name=f"learner-{i}") for i, one in enumerate(learners)]
        async with running(*agents):
            await enrolled(controller, len(learners))
            results = await run_to_end(controller, config)
            body = await controller.http.get("/v1/runs/latest/model")
            return results, wire.decode(body.content).arrays[0]


def numbers(one: m.Round) -> list[int]:
    """Which learners' updates entered."""
    return [int(name.removeprefix("learner-")) for name in one.completed]


@pytest.mark.parametrize(
    ("more", "size"),
    [
        ({}, 3),
        ({"selection": {"participation_ratio": 0.5}}, 3),
        ({"selection": {"participation_ratio": 0.5}}, 20_000),
        ({"selection": {"participation_ratio": 0.5, "over_selection": 0.6}}, 3),  # two of five come too late
        ({"evaluation": {"overlap": True}}, 3),
    ],
)
async def test_models_and_controls_are_those_of_the_paper(more: dict[str, Any], size: int) -> None:
    """Every model and control that any learner was given, and the final model; all or half of six take part."""
    parabolas = some(6, size)
    learners = [Descends(one) for one in parabolas]
    results, final = await played(learners, configured(min_learners=6, **more))
    assert (results.run.state, results.run.reason) == ("completed", f"{ROUNDS} rounds are done")
    paper = Paper.start(parabolas, np.zeros(size))
    for one in results.rounds:
        members = numbers(one)
        assert len(members) == (3 if "selection" in more else 6)
        for i in members:
            model, control = learners[i].seen[one.round]
            np.testing.assert_allclose(model, paper.x, rtol=1e-9, atol=1e-12)
            assert control is not None
            np.testing.assert_allclose(control, paper.c, rtol=1e-9, atol=1e-12)
        paper.round(members)
    np.testing.assert_allclose(final, paper.x, rtol=1e-9)
    assert len({tuple(numbers(one)) for one in results.rounds}) > 1 or "selection" not in more


async def test_it_finds_the_common_minimum_where_averaging_drifts() -> None:
    """The minimum of the mean of the losses, Σ a·b / Σ a in each place, of which plain averaging ends beside."""
    parabolas = some(4)
    minimum = sum(one.a * one.b for one in parabolas) / sum(one.a for one in parabolas)
    rounds = {"termination": {"federation_rounds": 40}, "min_learners": 4, "evaluation": {"every": 0}}
    _, corrected = await played([Descends(one) for one in parabolas], configured(**rounds))
    _, averaged = await played([Descends(one) for one in parabolas], configured(**rounds, algorithm="None"))
    assert abs(corrected - minimum).max() < 1e-3
    assert abs(averaged - minimum).max() > 0.05


# ---- closed forms: where it goes when learners weigh differently, come, leave, and are started again
MANUAL = configured(advance="manual", termination={"federation_rounds": 1000}, evaluation={"every": 0})


async def at_rest(controller: InProcess, first: int, rounds: int = 60) -> Array:
    """The point after so many more rounds."""
    for number in range(first, first + rounds):
        await step(controller, number)
    body = await controller.http.get("/v1/runs/latest/model")
    return wire.decode(body.content).arrays[0]


def weighing() -> list[Parabola]:
    """Three parabolas of very different rows."""
    return [replace(one, rows=rows) for one, rows in zip(some(3), (1, 40, 7), strict=True)]


async def test_it_goes_to_the_weighted_optimum() -> None:
    """The one that the scaling factors name."""
    learners = [Descends(one) for one in weighing()]
    _, final = await played(learners, configured(termination={"federation_rounds": 60}, min_learners=3))
    assert abs(final - optimum(weighing())).max() < 1e-4
    assert abs(optimum(weighing()) - optimum(some(3))).max() > 0.1


@pytest.mark.parametrize("event", ["join", "leave", "restart", "new identity"])
async def test_nothing_is_left_of_who_came_and_went(event: str, tmp_path: Path) -> None:
    """Ten rounds, then something happens to the third learner; 80 later the run is at the optimum of who is here."""
    parabolas = weighing()
    states: list[StateFile] = []
    async with in_process() as controller, AsyncExitStack() as first, AsyncExitStack() as second:

        def agent(number: int) -> Any:
            name, folder = f"learner-{number}", tmp_path / str(number)
            states.append(StateFile(folder, name, "http://controller"))
            line = Line(controller.app)
            return agent_of(Descends(parabolas[number]), line, name, state=states[-1], local_file=folder / "it.local")

        await second.enter_async_context(running(*(agent(number) for number in range(2))))
        if event != "join":
            third = agent(2)
            await first.enter_async_context(running(third))
        await enrolled(controller, 2 if event == "join" else 3)
        await controller.client().start_run({**MANUAL, "min_learners": 2})
        await at_rest(controller, 1, 10)
        if event == "restart":
            third._leave = killed
        await first.aclose()
        if event in ("restart", "new identity"):
            states[-1].close()
        if event == "new identity":
            shutil.rmtree(tmp_path / "2")
        if event != "leave":
            await second.enter_async_context(running(agent(2)))
        await enrolled(controller, 2 if event == "leave" else 3)
        final = await at_rest(controller, 11, 80)
    here = parabolas[:2] if event == "leave" else parabolas
    assert abs(final - optimum(here)).max() < 1e-4


async def killed() -> None:
    """In place of leaving the federation."""


@pytest.mark.parametrize("encoding", [{"up": "int8", "down": "bf16"}, {"up": "topk", "topk_ratio": 0.5}])
async def test_controls_travel_beside_coded_models(encoding: dict[str, Any]) -> None:
    """They are plain whatever the form of the model: c is the mean of what the learners have."""
    learners = [Descends(one) for one in some(3, 20_000)]
    results, _ = await played(learners, configured(min_learners=3, encoding=encoding))
    assert results.run.state == "completed"
    for number in range(2, ROUNDS + 1):
        given = [one.seen[number][1] for one in learners]
        assert all(np.array_equal(given[0], other) for other in given[1:])  # type: ignore[arg-type]
        assert abs(given[0]).max() > 0.1  # type: ignore[arg-type]
    plain = sum(tensor.size for tensor in learners[0].get_weights()) * 8
    assert results.rounds[2].bytes.up < 3 * 2 * plain  # a control of its own bytes, and a model of fewer


async def test_a_learner_that_joins_later_gets_the_control_and_an_input_is_fetched_once() -> None:
    """It takes part from the next round on, with the control of the others; each control goes over each line once."""
    parabolas = some(3)
    learners = [Descends(one) for one in parabolas]
    async with in_process() as controller:
        lines = [Line(controller.app) for _ in learners]
        agents = [agent_of(learners[i], lines[i], name=f"learner-{i}") for i in range(3)]
        async with running(*agents[:2]):
            await enrolled(controller, 2)
            await controller.client().start_run(configured(min_learners=2, advance="manual"))
            await step(controller, 1)
            await step(controller, 2)
            async with running(agents[2]):
                await enrolled(controller, 3)
                for number in range(3, ROUNDS + 1):
                    await step(controller, number)
                run = await ended(controller)
    assert run.state == "completed"
    assert sorted(learners[2].seen) == [3, 4, 5, 6]
    paper = Paper.start(parabolas[:2], np.zeros(3))
    paper.round([0, 1])
    paper.round([0, 1])
    for learner in learners:
        np.testing.assert_allclose(learner.seen[3][1], paper.c, rtol=1e-9)  # type: ignore[arg-type]
    fetched = [path for _, path in lines[0].seen if "/models/" in path]
    assert len(fetched) == len(set(fetched))


async def step(controller: InProcess, number: int) -> None:
    """An operator asks for a round, as soon as it may be, and it closes."""
    client = controller.client()

    async def closed() -> bool:
        rounds = await client.rounds()
        return sum(one.state == "closed" for one in rounds) >= number

    async def asked() -> bool:
        run = await client.run()
        return run.state == "waiting" and run.round == number - 1

    await until(asked)
    assert (await controller.http.post("/v1/runs/current/rounds")).status_code == 202
    await until(closed)


async def test_a_learner_that_does_not_do_it_is_told_why() -> None:
    """The run fails, naming what is missing."""

    class Ignorant(Descends):
        def train(self, weights: list[Array], config: dict[str, Any]) -> Any:
            """Knows nothing of controls."""
            return weights, {}, {"num_training_examples": 1}

    results, _ = await played([Ignorant(some(1)[0])], configured())
    assert results.run.state == "failed"
    assert "returned no metadata['extra']['control'], which the run's algorithm needs" in (results.run.reason or "")
