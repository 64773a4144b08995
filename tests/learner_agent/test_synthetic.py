"""Learners that train nothing, for `metis bench`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from learner_agent.synthetic import SyntheticLearner, layer_shapes
from services.rest import Client
from tests.conftest import Process, Served, until


@pytest.mark.parametrize(("asked", "has"), [(100_000, 106_081), (1_000_000, 1_011_501), (10_000_000, 10_021_941)])
def test_the_model_has_about_as_many_parameters_as_asked(asked: int, has: int) -> None:
    """13 inputs, 100 hidden layers of one width w, one output: 13w + w + 100(w² + w) + w + 1."""
    assert sum(math.prod(shape) for shape in layer_shapes(asked)) == has
    width = layer_shapes(asked)[1][0]
    assert has == 13 * width + width + 100 * (width**2 + width) + width + 1


def test_each_learner_sends_another_update() -> None:
    """From the same weights, the first value moves by a thousandth for learner 0, by two for learner 1."""
    learners = [SyntheticLearner(index, 1) for index in (0, 1)]
    start = learners[0].get_weights()
    updates = [learner.train([w.copy() for w in start], {})[0] for learner in learners]
    moved = [float(update[0].flat[0] - start[0].flat[0]) for update in updates]
    assert moved == pytest.approx([0.001, 0.002], abs=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(updates[0][1:], start[1:], strict=True))
    assert learners[0].evaluate(start, {}) == {"score": float(start[0].flat[0])}


async def test_many_learners_in_one_process_do_a_run(start: Callable[..., Process], served: Served) -> None:
    """Four of them, two rounds; they end with the federation."""
    many = ("-m", "learner_agent.synthetic", "--controller", served.url, "--learners", "4", "--params", "1000")
    process = start("synthetic", *many)
    async with Client(served.url) as client:
        await client.start_run({"min_learners": 4, "termination": {"federation_rounds": 2}})

        async def completed() -> bool:
            return (await client.run()).state == "completed"

        await until(completed, 30)
        results = await client.results()
        await client.shutdown()
    names = [f"synthetic-{index:04d}" for index in range(4)]
    assert [one.completed for one in results.rounds] == [names, names]
    assert process.wait(20) == 0
