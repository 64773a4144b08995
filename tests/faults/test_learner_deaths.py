"""Learners that die, freeze or are cut off in every round: each round ends in time and says why."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services import messages as m
from services.rest import Client
from services.weights.wire import decode
from tests.conftest import Process, Served, serve, until
from tests.faults.federation import Diary, Watched
from tests.faults.figures import record
from tests.faults.marked import agent_of, all_counted, held, seconds_between
from tests.faults.proxy import Proxy

IN_FULL = os.environ.get("METIS_FAULTS") == "all"
ROUNDS = 20 if IN_FULL else 3
PROCESSES, CUT_OFF = 3, 7  # learners: agents of processes of their own, agents behind a proxy
HIT = 3  # of them in each round
DURING_S = 0.4  # of a training
SLACK_S = 2.0  # of a busy machine
MOST = int(0.75 * ROUNDS)  # rounds: what is meant to happen in each
REASONS = re.compile(
    r"\d+ of \d+ members reported|deadline, with \d+ updates?|\d+ members reported, (lost: .+|\d+ failed)"
)
ACKNOWLEDGED = re.compile(r"\bdone +kind=train round=(\d+)")  # in the log of an agent
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ending:
    """What ends rounds whose members are silent, and how a run must be configured for that."""

    lease_s: float
    deadline_s: float
    evaluate_every: int  # an evaluation waits likewise
    reason: str  # within `closed_by`

    @property
    def run(self) -> dict[str, Any]:
        """The configuration."""
        return {
            "min_learners": PROCESSES + CUT_OFF,
            "schedule": {"round_deadline_s": self.deadline_s, "lease_s": self.lease_s, "min_updates": 2},
            "evaluation": {"every": self.evaluate_every},
            "termination": {"federation_rounds": ROUNDS},
        }


ENDINGS = {
    "lapsed leases": Ending(lease_s=1.5, deadline_s=8.0, evaluate_every=1, reason="lost: "),
    "the deadline": Ending(lease_s=60.0, deadline_s=1.5, evaluate_every=0, reason="deadline, with "),
}


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
    diary: Diary  # of those behind a proxy
    draw: random.Random = field(default_factory=lambda: random.Random(1))
    hits: list[tuple[int, str, str]] = field(default_factory=list)  # round, learner, what

    async def strike_in_each_round(self, operator: Client, patience_s: float) -> None:
        """Until the run is over; raises TimeoutError when for so long no round begins."""
        struck = 0

        async def training() -> m.Run | None:
            run = await operator.run()
            return run if run.state in m.TERMINAL or (run.round > struck and run.state == "training") else None

        while (run := await until(training, patience_s)).state not in m.TERMINAL:
            struck = run.round
            self.strike(struck)

    def strike(self, number: int) -> None:
        """Heal who was hit before, hit others."""
        well = [one for one in self.learners if one.harmed is None]
        for one in self.learners:
            if one.harmed is not None:
                one.heal()
        for one in self.draw.sample(well, HIT):
            one.hit(self.draw)
            self.hits.append((number, one.name, str(one.harmed)))

    def harm_to(self, name: str, number: int) -> str | None:
        """What a learner was last hit by, up to a round."""
        return next((what for at, hit, what in reversed(self.hits) if hit == name and at <= number), None)

    def acknowledged(self) -> set[tuple[str, int]]:
        """Learner and round of the updates that learners were told are taken."""
        told = {(learner, number) for kind, learner, _, number in self.diary.acknowledged if kind == "train"}
        for one in self.learners:
            if isinstance(one, InProcess):
                told |= {(one.name, int(number)) for number in ACKNOWLEDGED.findall(one.process.log.read_text())}
        return told

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
        tasks, diary = [], Diary()
        for name in names[PROCESSES:]:
            proxy = await stack.enter_async_context(Proxy(served.port))
            client = await stack.enter_async_context(Watched(proxy.url, name, diary))
            learners.append(BehindProxy(name, proxy))
            tasks.append(group.create_task(agent_of(client, name, marks[name], DURING_S).run()))
        there = Fleet(learners, marks, diary)
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


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
@pytest.mark.timeout(60 + 10 * ROUNDS)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
async def test_no_round_hangs_however_many_learners_die(
    ending: Ending, start: Callable[..., Process], tmp_path: Path
) -> None:
    """Three of ten are killed, frozen or cut off in each round: it ends in time, says why, and its mean is that of the
    updates that arrived, with all that were acknowledged."""
    served = serve(start, tmp_path)
    async with fleet(start, served) as there, Client(served.url) as operator:
        await operator.start_run(ending.run)
        await there.strike_in_each_round(operator, 2 * ending.deadline_s + 10)
        results = await operator.results()
        final = held(decode(await operator.run_model()).arrays[0])
    rounds, acknowledged = results.rounds, there.acknowledged()
    took = [seconds_between(one.started_at, one.completed_at or "") for one in rounds]
    well = {
        one.round
        for one, seconds in zip(rounds, took, strict=True)
        if REASONS.fullmatch(one.closed_by or "") and seconds <= ending.deadline_s + SLACK_S
    }
    counted = Counter((name, one.round) for one in rounds for name in one.completed)
    lost = acknowledged - counted.keys()
    twice = [update for update, times in counted.items() if times > 1]
    for what in sorted({what for _, _, what in there.hits}):
        struck = [number for number, _, one in there.hits if one == what]
        record(
            f"learner in mid-round: {what}",
            tried=len(struck),
            survived=sum(number in well for number in struck),
            lost=sum(there.harm_to(*update) == what for update in lost),
            twice=sum(there.harm_to(*update) == what for update in twice),
            longest_wait_s=max(took),
        )
    assert (results.run.state, results.ended_by, len(rounds)) == ("completed", "federation_rounds", ROUNDS)
    told = [(one.round, len(one.completed), one.closed_by, f"{s} s") for one, s in zip(rounds, took, strict=True)]
    assert well == set(range(1, ROUNDS + 1)), told
    assert sum(len(one.completed) <= len(there.learners) - HIT for one in rounds) >= MOST, told
    assert sum(ending.reason in str(one.closed_by) for one in rounds) >= MOST, told
    assert all_counted(rounds, final) == [sum(there.marks[name] for name in one.completed) for one in rounds]
    assert (lost, twice, there.diary.asked_again) == (set(), [], [])
    assert len(acknowledged) >= 0.75 * len(counted), "not all learners are listened to"
