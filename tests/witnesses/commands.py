"""The installed commands as processes: a controller on a folder, an agent, `metis verify`. Nothing else of the project.

They are those beside the Python that runs this, or those of the folder that is given (`bin` of any environment).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(sys.executable).parent
STARTS_S, ENDS_S, VERIFIES_S = 30.0, 20.0, 60.0


def environment(**given: str) -> dict[str, str]:
    """Of a process that knows nothing of other federations."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("METIS_")}
    return {**clean, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **given}


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Command:
    """A process whose output goes to a file."""

    def __init__(self, log: Path, *arguments: str, cwd: Path, **given: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment(**given),
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal; its exit status."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            return self.child.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(ENDS_S)
            raise AssertionError(f"it did not end within {ENDS_S:g} s:\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


@dataclass
class Controller:
    """One that answers: its address, and a client of its open HTTP."""

    process: Command
    url: str
    http: httpx.Client


@contextlib.contextmanager
def controller(
    folder: Path, *flags: str, commands: Path = HERE, given: Mapping[str, str] | None = None
) -> Iterator[Controller]:
    """A controller on `folder`, with what is `given` in its environment; it is killed on leaving, unless it has ended.
    It runs in the folder's parent and is told the name alone: no path of this machine can come into its state."""
    port = free_port()
    where = ("--host", "127.0.0.1", "--port", str(port), "--data-dir", folder.name)
    arguments = (str(commands / "metis-controller"), *where, "--log-level", "warning", *flags)
    process = Command(folder.with_name(f"{folder.name}.log"), *arguments, cwd=folder.parent, **(given or {}))
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        try:
            _wait_for(http, process)
            yield Controller(process, url, http)
        finally:
            process.end(signal.SIGKILL)


def _wait_for(http: httpx.Client, process: Command) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline and process.child.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if http.get("/healthz").status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError(f"the controller does not answer:\n{process.tail()}")


@contextlib.contextmanager
def agents(
    url: str, names: Sequence[str], state: Path, learner: Path, commands: Path = HERE, **given: str
) -> Iterator[list[Command]]:
    """An agent for each name; the number of its learner is its place, from 1 on. Killed on leaving."""
    started = []
    try:
        for number, name in enumerate(names, 1):
            who = ("--name", name, "--state-dir", str(state))
            what = ("--controller", url, "--learner", f"{learner.stem}:made")
            log = state.with_name(f"{state.name}-{name}.log")
            more = {"WITNESS_NUMBER": str(number), **given}
            command = str(commands / "metis-learner")
            started.append(Command(log, command, *what, *who, cwd=learner.parent, **more))
        yield started
    finally:
        for one in started:
            one.end(signal.SIGKILL)


def verify(folder: Path, *flags: str, commands: Path = HERE) -> tuple[int, dict[str, Any]]:
    """What `metis verify` says of a folder: its exit status and its JSON."""
    command = (str(commands / "metis"), "verify", "--data-dir", str(folder), "--json", *flags)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=VERIFIES_S, cwd=folder.parent, env=environment()
    )
    assert done.returncode in (0, 1), (done.returncode, done.stderr)
    told: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, told
