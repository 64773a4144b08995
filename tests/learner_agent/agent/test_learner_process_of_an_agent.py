"""`metis-learner --process`, as real processes: the agent, and the process in which its learner lives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from services import messages as m
from services.rest import Client
from tests.conftest import Process, Served, until

HERE = Path(__file__).parents[3]
PUPIL = "tests.learner_agent.scripted_learner:Pupil"


def is_there(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:  # no /proc: a process of ours that ended is waited for by its parent
        return True
    except ProcessLookupError:
        return False


def process_agent(start: Callable[..., Process], served: Served, tmp_path: Path, name: str = "pupil") -> Process:
    """The command with --process; ids of training processes go into the file `pids`."""
    where = ("--controller", served.url, "--name", name)
    arguments = ("-m", "learner_agent", *where, "--learner", PUPIL, "--process")
    return start(name, *arguments, cwd=HERE, METIS_TEST_PIDS=str(tmp_path / "pids"))


def pids(tmp_path: Path) -> list[int]:
    """Of the processes that began to train, in order."""
    file = tmp_path / "pids"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


async def finished(client: Client) -> m.Results:
    """The results of the run, once it is over."""

    async def over() -> bool:
        return (await client.run()).state in m.TERMINAL

    await until(over, 40)
    return await client.results()


async def test_a_run_is_done_by_a_process_beside_the_agent(
    start: Callable[..., Process], served: Served, tmp_path: Path
) -> None:
    """Two rounds in one process that is not the agent's."""
    agent = process_agent(start, served, tmp_path)
    async with Client(served.url) as client:
        await client.start_run({"termination": {"federation_rounds": 2}})
        results = await finished(client)
    assert results.run.state == "completed"
    assert [one.evaluation_metrics.combined for one in results.rounds] == [{"score": 1.0}, {"score": 2.0}]
    first, second = pids(tmp_path)
    assert first == second != agent.child.pid


@pytest.mark.slow
async def test_a_killed_process_is_a_failure_and_the_next_round_has_a_new_one(
    start: Callable[..., Process], served: Served, tmp_path: Path
) -> None:
    """kill -9 in mid-training: the controller is told, the agent stays, the next run completes."""
    agent = process_agent(start, served, tmp_path)
    until_file = {"do": "wait", "until": str(tmp_path / "go"), "quiet": True}
    async with Client(served.url) as client:
        once = {"schedule": {"max_failed_rounds": 1}, "termination": {"federation_rounds": 1}}
        await client.start_run({**once, "train": until_file})

        async def training() -> list[int]:
            return pids(tmp_path)

        (victim,) = await until(training)
        os.kill(victim, signal.SIGKILL)
        results = await finished(client)
        assert results.run.state == "failed"
        assert "the learner's process ended with status -9" in results.rounds[0].failed["pupil"]
        await client.start_run({"termination": {"federation_rounds": 1}})
        assert (await finished(client)).run.state == "completed"
    assert pids(tmp_path)[1] != victim
    assert agent.child.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_process_ends_with_its_agent(
    start: Callable[..., Process], served: Served, tmp_path: Path, number: int
) -> None:
    """SIGTERM: the agent leaves and ends both. SIGKILL: the process sees that the agent is gone, though it trains."""
    agent = process_agent(start, served, tmp_path)
    train = {"do": "wait", "until": str(tmp_path / "never"), "quiet": True}
    async with Client(served.url) as client:
        once = {"schedule": {"max_failed_rounds": 1}, "termination": {"federation_rounds": 1}}
        await client.start_run({**once, "train": train})

        async def training() -> list[int]:
            return pids(tmp_path)

        (child,) = await until(training)
        agent.kill(number)
        assert agent.wait(10) == (0 if number == signal.SIGTERM else -number), agent.tail()

        async def gone() -> bool:
            return not is_there(child)

        await until(gone, 10)
        if number == signal.SIGTERM:
            assert await client.learners() == []
            assert (await finished(client)).rounds[0].failed == {"pupil": "pupil left"}
