"""Real processes on loopback that send less: the digits are learned all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.rest import Client
from tests.conftest import Process, Served, digits_learners, until
from tests.e2e.test_federation import RUN, ended

PLAIN = 19_600  # bytes: about what a model of the digits takes as it is

ENCODINGS = [
    ({"up": "bf16", "down": "bf16"}, 0.53, 0.53),
    ({"up": "int8", "down": "int8"}, 0.29, 0.28),
    ({"up": "topk", "topk_ratio": 0.1, "down": "int8"}, 0.24, 0.28),
]


@pytest.mark.parametrize(("encoding", "up", "down"), ENCODINGS, ids=str)
async def test_the_digits_are_learned_in_fewer_bytes(
    start: Callable[..., Process], served: Served, encoding: dict[str, Any], up: float, down: float
) -> None:
    """Five rounds reach 0.9, and every round moves at most this share of the bytes in each direction."""
    digits_learners(start, served.url, 3)
    async with Client(served.url) as client:
        await client.start_run(RUN | {"encoding": encoding})
        await until(lambda: ended(client), 60)
        results = await client.results()
    assert (results.run.state, len(results.rounds)) == ("completed", 5)
    assert all(len(one.completed) == 3 for one in results.rounds)
    accuracy = results.rounds[-1].evaluation_metrics.combined["accuracy"]
    assert accuracy is not None
    assert accuracy >= 0.9
    assert all(one.bytes.up <= 3 * PLAIN * up for one in results.rounds)
    assert all(one.bytes.down <= 3 * PLAIN * down for one in results.rounds[1:])  # the first gets model 0 too


@pytest.mark.slow
async def test_a_learner_in_a_process_of_its_own_sends_less_as_well(
    start: Callable[..., Process], served: Served
) -> None:
    """`--process`: the agent codes what its child sends back."""
    names = ("first", "second")
    for shard, name in enumerate(names):
        where = ("--controller", served.url, "--learner", "learner_agent.digits:digits_learner", "--name", name)
        shown = {"METIS_SHARD": str(shard), "METIS_NUM_SHARDS": "2"}
        start(name, "-m", "learner_agent", *where, "--process", **shown)
    async with Client(served.url) as client:
        await client.start_run(RUN | {"min_learners": 2, "encoding": {"up": "int8", "down": "int8"}})
        await until(lambda: ended(client), 60)
        results = await client.results()
    assert [one.completed for one in results.rounds] == [list(names)] * 5
    assert (results.rounds[-1].evaluation_metrics.combined["accuracy"] or 0) >= 0.9
    assert results.rounds[-1].bytes.up <= 2 * PLAIN * 0.30
