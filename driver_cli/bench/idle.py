"""Thousands of learners that wait: what they cost the controller, and how soon they hear of a run."""

from __future__ import annotations

import asyncio
import itertools
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.errors import FederationError, InvalidConfig
from services.rest import Client
from services.weights import wire

from ..local import Children, children, start_controller
from . import counters
from .channel import Program, start_program
from .machine import load
from .measurements import Idle, Spread

WOKEN = 1_000  # learners that get a task
RUNS = 5  # how often
WAIT_S = 60.0  # what a poll asks for: the most that a controller grants
SPARE_FILES = 200  # beside the connections: the program's own files
TASKS_S = 60.0
SETTLE_S = 2.0  # between the last enrolment and the first look
PAUSE_S = 0.5  # between two runs: the learners that had a task wait again
KIB_PER_MB = counters.KIB_PER_MB


@dataclass(frozen=True)
class Waiters:
    """What to measure."""

    polls: int
    watched_s: float = 60.0
    woken: int = WOKEN
    model_store: str = "InMemory"

    async def run(self) -> Idle:
        """Measure. Raises InvalidConfig when the system allows too few open files."""
        raise_file_limit(self.polls + SPARE_FILES)
        load_before = load()[0]
        with tempfile.TemporaryDirectory(prefix="metis-bench-") as folder:
            async with children(Path(folder)) as started:
                return await self._measure(started, load_before)

    async def _measure(self, started: Children, load_before: float) -> Idle:
        controller = await start_controller(started, self.model_store)
        port = controller.url.rpartition(":")[2]
        crowd = await start_program(
            started, "crowd", "driver_cli.bench.crowd", "--controller", port, "--wait", f"{WAIT_S:g}"
        )
        pid = controller.process.pid
        memory, cpu, begun = counters.memory_kib(pid), counters.cpu_s(pid), time.monotonic()
        await _ask(crowd, "enrol", count=self.polls)
        enrol_s, enrol_cpu = time.monotonic() - begun, counters.cpu_s(pid)
        await asyncio.sleep(SETTLE_S)
        added = _added(memory, counters.memory_kib(pid))
        ended, shares = await self._watch(crowd, pid)
        async with Client(controller.url) as client:
            answered, posted = await self._runs(crowd, client)
        return Idle(
            polls=self.polls,
            wait_s=WAIT_S,
            enrol_s=round(enrol_s, 3),
            enrol_cpu_s=None if cpu is None or enrol_cpu is None else round(enrol_cpu - cpu, 3),
            added_mb=None if added is None else round(added / KIB_PER_MB, 1),
            added_kib_per_poll=None if added is None else round(added / self.polls, 2),
            watched_s=self.watched_s,
            ended_polls=ended,
            cpu_percent=round(statistics.fmean(shares), 3) if shares else None,
            cpu_percent_quiet=round(statistics.median(shares), 3) if shares else None,
            woken=min(self.woken, self.polls),
            runs=RUNS,
            last_task_ms=Spread.of(answered),
            last_task_after_post_ms=Spread.of(posted),
            load=(load_before, load()[0]),
        )

    async def _watch(self, crowd: Program, pid: int) -> tuple[int, list[float]]:
        """Polls that ended, and the share of a core in each second, in percent."""
        before: int = (await _ask(crowd, "state"))["ended_polls"]
        looks = [(time.monotonic(), counters.cpu_s(pid))]
        for _ in range(max(1, round(self.watched_s))):
            await asyncio.sleep(1.0)
            looks.append((time.monotonic(), counters.cpu_s(pid)))
        shares = [
            100 * (cpu - cpu_before) / (at - at_before)
            for (at_before, cpu_before), (at, cpu) in itertools.pairwise(looks)
            if cpu is not None and cpu_before is not None
        ]
        return (await _ask(crowd, "state"))["ended_polls"] - before, shares

    async def _runs(self, crowd: Program, client: Client) -> tuple[list[float], list[float]]:
        """Milliseconds from the answer to the POST of a run, and from the POST, to the last of the tasks' answers."""
        digest = await client.put_model(wire.encode(wire.name_tensors([np.zeros(4, np.float32)])))
        woken, answered, posted = min(self.woken, self.polls), [], []
        for seed in range(RUNS):
            sent = time.monotonic()
            await client.start_run(
                {
                    "seed": seed,
                    "initial_model": digest,
                    "selection": {"participation_ratio": woken / self.polls},
                    "termination": {"federation_rounds": 1},
                }
            )
            told = time.monotonic()
            last: float = (await _ask(crowd, "tasks", wanted=woken, within_s=TASKS_S))["last_task_at"]
            answered.append(1000 * (last - told))
            posted.append(1000 * (last - sent))
            await client.stop_run()
            await _ask(crowd, "again")
            await asyncio.sleep(PAUSE_S)
        return answered, posted


def raise_file_limit(wanted: int) -> None:
    """Let this process and the children that it starts have `wanted` open files; raises InvalidConfig if they may not.

    A process may raise its own limit up to the hard one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and hard < wanted:
        raise InvalidConfig(
            f"{wanted} open files are needed and the system allows {hard} (`ulimit -Hn`): ask for fewer learners,"
            " or let the administrator raise the limit",
            limit=hard,
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _ask(crowd: Program, question: str, **details: Any) -> dict[str, Any]:
    told = await crowd.ask(question, **details)
    if told["refused"]:
        raise FederationError(f"a waiting learner: {told['refused']}")
    return told


def _added(before: dict[str, int], after: dict[str, int]) -> int | None:
    """KiB of anonymous memory."""
    return after["RssAnon"] - before["RssAnon"] if "RssAnon" in before and "RssAnon" in after else None
