"""Learners that die, freeze or are cut off in every round: each round ends in time and says why."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services import messages as m
from services.rest import Client
from tests.conftest import Process, Served, serve, until
from tests.faults.figures import record
from tests.faults.marked import agent_of, counted, seconds_between
from tests.faults.proxy import Proxy

IN_FULL = os.environ.get("METIS_FAULTS") == "all"
ROUNDS = 20 if IN_FULL else 3
PROCESSES, CUT_OFF = 3, 7  # learners: agents of processes of their own, agents behind a proxy
HIT = 3  # of them in each round
DEADLINE_S, LEASE_S, DURING_S = 8.0, 1.5, 0.4
RUN = {
    "min_learners": PROCESSES + CUT_OFF,
    "schedule": {"round_deadline_s": DEADLINE_S, "lease_s": LEASE_S, "min_updates": 2},
    "termination": {"federation_rounds": ROUNDS},
}
ROOT = Path(__file__).parents[2]


class AtRisk:
    """A learner; `hit()` does it harm, `heal()` ends that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.harmed: str | None = None

    def hit(self, draw: random.Random) -> None:
        """Do harm."""
        raise NotImplementedError

    def heal(self) -> None:
        """As before."""
        raise NotImplementedError


class InProcess(AtRisk):
    """An agent as a process, killed or frozen."""

    def __init__(self, name: str, launch: Callable[[str], Process]) -> None:
        super().__init__(name)
        self._launch = launch
        self.process = launch(name)

    def hit(self, draw: random.Random) -> None:
        """SIGKILL or SIGSTOP."""
        number = draw.choice((signal.SIGKILL, signal.SIGSTOP))
        self.harmed = number.name
        self.process.kill(number)

    def heal(self) -> None:
        """A new process of the same name and state folder, or SIGCONT."""
        if self.harmed == "SIGKILL":
            self.process.wait(5)
            self.process = self._launch(self.name)
        else:
            self.process.kill(signal.SIGCONT)
        self.harmed = None


class BehindProxy(AtRisk):
    """An agent of this process, cut off in one of several ways."""

    def __init__(self, name: str, proxy: Proxy) -> None:
        super().__init__(name)
        self.proxy = proxy

    def hit(self, draw: random.Random) -> None:
        """Partitioned, in both directions or one; or its connections are cut and no new ones come through."""
        self.harmed = draw.choice(("partition", "no way there", "no way back", "refused"))
        if self.harmed == "refused":
            self.proxy.refusing = True
            self.proxy.forget()
        if self.harmed in ("partition", "no way there"):
            self.proxy.up.hold()
        if self.harmed in ("partition", "no way back"):
            self.proxy.down.hold()

    def heal(self) -> None:
        """What was held comes through."""
        self.proxy.heal()
        self.harmed = None


@dataclass
class Fleet:
    """All learners, and what was done to them."""

    learners: list[AtRisk]
    marks: dict[str, float]
    draw: random.Random
    hits: list[tuple[int, str, str]] = field(default_factory=list)  # round, learner, what

    def strike(self, number: int) -> None:
        """Heal who was hit before, hit others."""
        well = [one for one in self.learners if one.harmed is None]
        for one in self.learners:
            if one.harmed is not None:
                one.heal()
        for one in self.draw.sample(well, HIT):
            one.hit(self.draw)
            self.hits.append((number, one.name, str(one.harmed)))

    def heal(self) -> None:
        """Heal everybody."""
        for one in self.learners:
            if one.harmed is not None:
                one.heal()


@asynccontextmanager
async def fleet(start: Callable[..., Process], served: Served) -> AsyncIterator[Fleet]:
    """Ten learners at work; the marks are powers of two."""
    names = [f"learner-{index}" for index in range(PROCESSES + CUT_OFF)]
    marks = {name: 2.0**index for index, name in enumerate(names)}

    def launch(name: str) -> Process:
        what = ("-m", "learner_agent", "--controller", served.url, "--learner", "tests.faults.marked:marked")
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        return start(name, *what, "--name", name, MARK=f"{marks[name]}", DURING_S=f"{DURING_S}", PYTHONPATH=path)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        learners: list[AtRisk] = [InProcess(name, launch) for name in names[:PROCESSES]]
        tasks = []
        for name in names[PROCESSES:]:
            proxy = await stack.enter_async_context(Proxy(served.port))
            client = await stack.enter_async_context(Client(proxy.url, patience_s=None))
            learners.append(BehindProxy(name, proxy))
            tasks.append(group.create_task(agent_of(client, name, marks[name], DURING_S).run()))
        there = Fleet(learners, marks, random.Random(1))
        try:
            yield there
        finally:
            there.heal()
            for task in tasks:
                task.cancel()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agents of this process come back within a second, not within half a minute."""
    seconds = "services.rest.backoff.FullJitter.seconds"
    draw = random.Random(2)
    monkeypatch.setattr(seconds, lambda self, attempt: draw.uniform(0, min(1.0, 0.1 * 2.0**attempt)))


@pytest.mark.usefixtures("soon")
@pytest.mark.timeout(60 + ROUNDS * 2 * int(DEADLINE_S))
async def test_no_round_hangs_however_many_learners_die(start: Callable[..., Process], tmp_path: Path) -> None:
    """Three of ten are killed, frozen or cut off in each round: it ends in time, says why, and its mean is right."""
    served = serve(start, tmp_path)
    async with fleet(start, served) as there, Client(served.url) as operator:
        await operator.start_run(RUN)
        for number in range(1, ROUNDS + 1):

            async def training(number: int = number) -> bool:
                run = await operator.run()
                return run.state in m.TERMINAL or (run.round >= number and run.state == "training")

            await until(training, 2 * DEADLINE_S + 10)
            there.strike(number)

        async def over() -> bool:
            return (await operator.run()).state in m.TERMINAL

        await until(over, 2 * DEADLINE_S + 10)
        results = await operator.results()
        hits = there.hits
    assert (results.run.state, results.ended_by, len(results.rounds)) == ("completed", "federation_rounds", ROUNDS)
    waits = []
    for one, following in zip(results.rounds, [*results.rounds[1:], None], strict=True):
        assert one.closed_by is not None
        assert len(one.closed_by.split()) >= 3, one.closed_by
        assert len(one.completed) >= 2
        assert one.completed_at is not None
        assert seconds_between(one.started_at, one.completed_at) <= 2 * DEADLINE_S + 1
        waits.append(seconds_between(one.started_at, following.started_at if following else one.completed_at))
    sums = [(counted(one), sum(there.marks[name] for name in one.completed)) for one in results.rounds]
    assert sum(got is None for got, _ in sums) <= ROUNDS // 4, "hardly a round was scored"
    assert [pair for pair in sums if pair[0] not in (None, pair[1])] == []
    assert len(hits) == ROUNDS * HIT
    for what in sorted({what for _, _, what in hits}):
        tried = sum(one == what for _, _, one in hits)
        record(f"learner in mid-round: {what}", tried, tried, 0, 0, max(waits))
