"""A federation on 127.0.0.1 and `metis`, each as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services import messages as m
from services.rest import Client
from tests.conftest import free_port

START_S = 60.0  # how long a controller and its learners may take to be there
END_S = 20.0  # how long a process may take to end after SIGTERM
METIS = (sys.executable, "-m", "driver_cli")


def clean_environment(**given: str) -> dict[str, str]:
    """The environment without the settings of another federation."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("METIS_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **given}


def metis(*arguments: str, cwd: Path, timeout: float = 240.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`metis` with these arguments, run to its end."""
    return subprocess.run(
        [*METIS, *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a process that a test started, by its pid."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_S)


@dataclass
class LocalFederation:
    """A controller, and learners on the digits that the package carries."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The controller's address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A process of the federation; its output goes to a file in the folder."""
        log = self.folder / f"{len(self.processes)}-{module}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env=clean_environment(**environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.processes.append(process)
        return process

    def start_controller(self, **environment: str) -> None:
        """Start the controller; it is not waited for."""
        data = str(self.folder / "data")
        arguments = ("--host", "127.0.0.1", "--port", str(self.port), "--data-dir", data, "--model-store", "InMemory")
        self.start("controller_api", *arguments, **environment)

    def start_learners(self, count: int) -> None:
        """Start learners that share the digits."""
        for index in range(count):
            self.start(
                "learner_agent",
                *("--controller", self.url, "--learner", "learner_agent.digits:digits_learner"),
                *("--name", f"learner-{index}"),
                METIS_SHARD=str(index),
                METIS_NUM_SHARDS=str(count),
                METIS_STATE_DIR=str(self.folder / f"state-{index}"),
            )

    def wait_for(self, learners: int, token: str | None = None) -> list[m.Learner]:
        """Wait until the controller answers and so many learners are there."""
        return asyncio.run(asyncio.wait_for(self._joined(learners, token), START_S))

    async def _joined(self, count: int, token: str | None) -> list[m.Learner]:
        async with Client(self.url, token, patience_s=START_S) as client:
            found = await client.learners()
            if len(found) >= count:
                return found
            async for event in client.events(after=0):
                if event.kind == "learner-joined" and len(found := await client.learners()) >= count:
                    return found
        raise AssertionError("the log of a federation has no end")

    def end(self) -> None:
        """End every process, the learners first."""
        for process in reversed(self.processes):
            end(process)


@dataclass
class MetisProcess:
    """A `metis` that goes on while the test does something else; its output is one stream of lines."""

    process: subprocess.Popen[str]

    def until(self, text: str) -> list[str]:
        """The lines up to one that holds `text`; the test's own timeout bounds the wait."""
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                return lines
        raise AssertionError(f"{text!r} was never printed:\n{''.join(lines)}")

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Press Ctrl-C, or send another signal."""
        self.process.send_signal(number)

    def rest(self, timeout: float = 60.0) -> tuple[int, str]:
        """Its exit status and what else it prints."""
        out, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, out


@contextlib.contextmanager
def driver(arguments: Sequence[str], cwd: Path, **environment: str) -> Iterator[MetisProcess]:
    """`metis` in the background, ended at the latest on leaving."""
    process = subprocess.Popen(
        [*METIS, *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield MetisProcess(process)
    finally:
        end(process)
        if process.stdout:
            process.stdout.close()
