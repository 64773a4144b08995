"""A controller as a process that is killed and started again, on one port and one folder."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import subprocess
from pathlib import Path

import httpx

from tests.conftest import Process

HEALTHY_S = 30.0  # how long a start may take
LOOK_S = 0.01
HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)  # below what a system gives to outgoing connections: one may not take it meanwhile
_tried = itertools.count(random.Random(os.getpid()).randrange(len(PORTS)))


def reserved_port() -> socket.socket:
    """A socket that holds a free port for the controllers of one folder, and refuses it to everyone else, for as long
    as it is open."""
    for number in itertools.islice(_tried, len(PORTS)):
        holder = socket.socket()
        try:
            holder.bind((HOST, PORTS[number % len(PORTS)]))
        except OSError:
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a listener may come beside it; a holder may not
        return holder
    raise AssertionError("there is no free port")


class ControllerProcess:
    """The controller of one folder, open, on loopback; `deaths` counts how often it died by SIGKILL."""

    def __init__(self, folder: Path, store: str = "OnDisk") -> None:
        self.folder = folder
        self._holder = reserved_port()
        self.port: int = self._holder.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self.deaths = 0
        self._store = store
        self._process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def launch(self, failpoint: str | None = None) -> None:
        """Start a process; it is not waited for."""
        where = ("--host", HOST, "--port", str(self.port), "--data-dir", str(self.folder / "data"))
        environment = {"METIS_FAILPOINT": failpoint} if failpoint else {}
        flags = ("--model-store", self._store, "--log-level", "warning")
        log = self.folder / "controller.log"
        self._process = Process(log, "-m", "controller_api", *where, *flags, cwd=self.folder, **environment)

    async def start(self, failpoint: str | None = None) -> bool:
        """Start a process and wait until it answers; whether it did before it died."""
        self.launch(failpoint)
        async with asyncio.timeout(HEALTHY_S), httpx.AsyncClient(trust_env=False) as http:
            while self._child.poll() is None:
                try:
                    if (await http.get(f"{self.url}/healthz")).status_code == 200:
                        return True
                except httpx.HTTPError:
                    await asyncio.sleep(LOOK_S)
        return False

    async def died(self) -> None:
        """Wait for its death by SIGKILL; raises when it ends in another way."""
        while (status := self._child.poll()) is None:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(LOOK_S)
        assert status == -signal.SIGKILL, f"the controller ended with status {status}:\n{self.tail()}"
        self.deaths += 1

    async def kill(self) -> None:
        """Kill it and wait for its end."""
        self._child.kill()
        await self.died()

    async def freeze(self, seconds: float) -> None:
        """Let it stand still for so long."""
        self._child.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._child.send_signal(signal.SIGCONT)

    async def restart(self) -> None:
        """A death that is not counted, and a new process that answers."""
        self.end()
        assert await self.start(), f"the controller ended while it started:\n{self.tail()}"

    def end(self) -> None:
        """End the process, if one is there."""
        if self._process is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait(10)

    def close(self) -> None:
        """End the process for good, and give the port back."""
        self.end()
        self._holder.close()

    def tail(self) -> str:
        """The end of what the processes said."""
        return self._process.tail() if self._process else ""

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "no controller was started"
        return self._process.child
