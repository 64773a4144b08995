"""Partitions that heal, of both directions or one, by a proxy and by network namespaces: nobody needs to step in."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services import messages as m
from services.rest import Client
from tests.conftest import Process, Served, serve, until
from tests.faults.figures import record
from tests.faults.marked import agent_of, counted
from tests.faults.namespace import Namespace
from tests.faults.proxy import Proxy

IN_FULL = os.environ.get("METIS_FAULTS") == "all"
ROOT = Path(__file__).parents[2]
MARKS = {"anna": 1.0, "bert": 2.0, "carl": 4.0}
AWAY_S = 6.0 if IN_FULL else 1.0  # how long a partition lasts
BACK_S = 60.0  # how long the return may take: a long poll on a dead connection, then a wait of the agent
RUN = {
    "min_learners": len(MARKS),
    "schedule": {"round_deadline_s": 20.0, "lease_s": 1.0},
    "termination": {"federation_rounds": 100_000},
}
WAYS = {"both directions": ("up", "down"), "no way there": ("up",), "no way back": ("down",)}
EVERY_CASE = [(way, remembered) for way in WAYS for remembered in (True, False)]  # False: the connections are lost
CASES = EVERY_CASE if IN_FULL else [("both directions", False), ("no way there", True), ("no way back", True)]
CHAINS = {"both directions": ("INPUT", "OUTPUT"), "no way there": ("OUTPUT",), "no way back": ("INPUT",)}


@dataclass
class Watched:
    """A run under way, and the look of an operator who only looks."""

    operator: Client

    async def completed_after(self, number: int) -> list[m.Round]:
        """The closed rounds after that one."""
        return [one for one in await self.operator.rounds() if one.state == "closed" and one.round > number]

    async def now(self) -> int:
        """The round in progress."""
        return (await self.operator.run()).round

    async def goes_on(self, missing: str | None, present: str | None, seconds: float) -> float:
        """Wait until a round that begins from now on ends without the one and with the other; seconds that it took."""
        began, number = time.monotonic(), await self.now()

        async def ended() -> bool:
            closed = await self.completed_after(number)
            return any(
                missing not in one.completed and (present or one.completed[0]) in one.completed for one in closed
            )

        await until(ended, seconds)
        return time.monotonic() - began

    async def counted_right(self) -> None:
        """The model of every round holds what the round says, each update once."""
        closed = [one for one in await self.operator.rounds() if one.state == "closed"]
        got = {one.round: counted(one) for one in closed}
        expected = {one.round: sum(MARKS[name] for name in one.completed) for one in closed}
        assert {number: value for number, value in got.items() if value not in (None, expected[number])} == {}
        assert all(one.closed_by for one in closed)


@asynccontextmanager
async def three_learners(served: Served) -> AsyncIterator[tuple[Watched, Proxy]]:
    """Anna and Bert reach the controller directly, Carl through a proxy; their run is under way."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        proxy = await stack.enter_async_context(Proxy(served.port))
        tasks = []
        for name, mark in MARKS.items():
            url = proxy.url if name == "carl" else served.url
            client = await stack.enter_async_context(Client(url, patience_s=None))
            tasks.append(group.create_task(agent_of(client, name, mark, 0.05).run()))
        operator = await stack.enter_async_context(Client(served.url))
        await operator.start_run(RUN)
        watched = Watched(operator)
        try:
            await watched.goes_on(None, "carl", 20)
            yield watched, proxy
        finally:
            proxy.heal()
            for task in tasks:
                task.cancel()


@pytest.mark.parametrize(("way", "remembered"), CASES)
@pytest.mark.timeout(180)
async def test_a_partition_heals_by_itself(
    start: Callable[..., Process], tmp_path: Path, way: str, remembered: bool
) -> None:
    """One of three is cut off, silently: the rounds go on without it; with the network it is back by itself."""
    async with three_learners(serve(start, tmp_path)) as (watched, proxy):
        for direction in WAYS[way]:
            getattr(proxy, direction).hold()
        without = await watched.goes_on("carl", "anna", 20)
        await asyncio.sleep(AWAY_S)
        await watched.goes_on("carl", "anna", 20)
        if not remembered:
            proxy.forget()
        proxy.heal()
        back = await watched.goes_on(None, "carl", BACK_S)
        await watched.counted_right()
        assert len(await watched.operator.learners()) == len(MARKS)
    record(f"partition, {way}", 1, 1, 0, 0, max(without, back))


@pytest.mark.timeout(180)
async def test_everybody_is_cut_off_and_comes_back(start: Callable[..., Process], tmp_path: Path) -> None:
    """No learner reaches the controller: the run waits for learners instead of failing, and goes on with them."""
    served = serve(start, tmp_path)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        proxy = await stack.enter_async_context(Proxy(served.port))
        tasks = []
        for name, mark in MARKS.items():
            client = await stack.enter_async_context(Client(proxy.url, patience_s=None))
            tasks.append(group.create_task(agent_of(client, name, mark, 0.05).run()))
        operator = await stack.enter_async_context(Client(served.url))
        await operator.start_run(RUN)
        watched = Watched(operator)
        await watched.goes_on(None, "carl", 20)
        proxy.hold()
        await asyncio.sleep(AWAY_S)
        assert (await operator.run()).state not in m.TERMINAL
        proxy.forget()
        proxy.heal()
        healed = time.monotonic()
        for name in MARKS:
            await watched.goes_on(None, name, BACK_S)
        back = time.monotonic() - healed
        await watched.counted_right()
        for task in tasks:
            task.cancel()
    record("partition of all learners", 1, 1, 0, 0, back)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A namespace, or a skip that says what is missing."""
    made = Namespace()
    if missing := [tool for tool in ("ip", "iptables") if shutil.which(tool) is None]:
        pytest.skip(f"NETWORK NAMESPACES NOT TESTED: there is no {' and no '.join(missing)} here")
    try:
        made.open()
    except (OSError, subprocess.SubprocessError) as error:
        made.close()
        pytest.skip(f"NETWORK NAMESPACES NOT TESTED: {error}")
    yield made
    made.close()


@asynccontextmanager
async def across(start: Callable[..., Process], folder: Path, namespace: Namespace) -> AsyncIterator[Watched]:
    """Anna and Bert as before; Carl is an agent process in the namespace."""
    served = serve(start, folder, "--host", "0.0.0.0", "--insecure")
    python = f"{sys.executable} -m learner_agent --learner tests.faults.marked:marked --name carl"
    command = f"ip netns exec {namespace.name} {python} --controller http://{namespace.here}:{served.port}"
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    surroundings = {
        "MARK": f"{MARKS['carl']}",
        "DURING_S": "0.05",
        "PYTHONPATH": path,
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    start("carl", "-c", f"import os; os.execvp('ip', {command.split()!r})", **surroundings)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        tasks = []
        for name in ("anna", "bert"):
            client = await stack.enter_async_context(Client(served.url, patience_s=None))
            tasks.append(group.create_task(agent_of(client, name, MARKS[name], 0.05).run()))
        operator = await stack.enter_async_context(Client(served.url))
        await operator.start_run(RUN)
        watched = Watched(operator)
        try:
            await watched.goes_on(None, "carl", 20)
            yield watched
        finally:
            for task in tasks:
                task.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("way", CHAINS if IN_FULL else ["both directions"])
@pytest.mark.timeout(180)
async def test_a_network_that_drops_packets_heals_by_itself(
    start: Callable[..., Process], tmp_path: Path, namespace: Namespace, way: str
) -> None:
    """The same with a network whose packets vanish: the rounds go on without the learner, and then with it again."""
    async with across(start, tmp_path, namespace) as watched:
        namespace.drop(*CHAINS[way])
        without = await watched.goes_on("carl", "anna", 20)
        await asyncio.sleep(AWAY_S)
        await watched.goes_on("carl", "anna", 20)
        namespace.heal()
        back = await watched.goes_on(None, "carl", BACK_S)
        await watched.counted_right()
    record(f"network that drops packets, {way}", 1, 1, 0, 0, max(without, back))


@pytest.mark.skipif(not IN_FULL, reason="takes a minute: METIS_FAULTS=all")
@pytest.mark.timeout(300)
async def test_connections_that_died_without_a_word_are_noticed(
    start: Callable[..., Process], tmp_path: Path, namespace: Namespace
) -> None:
    """New connections come through, those that were open never again: the learner is back within a minute or so."""
    async with across(start, tmp_path, namespace) as watched:
        namespace.drop(*CHAINS["both directions"])
        await watched.goes_on("carl", "anna", 20)
        namespace.forget()
        back = await watched.goes_on(None, "carl", 4 * BACK_S)
        await watched.counted_right()
    record("connections that died without a word", 1, 1, 0, 0, back)
    assert back < 2 * BACK_S
