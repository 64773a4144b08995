"""Processes of a federation on this machine: started, watched, and ended again whatever happens to this one.

A child writes into its own log file, sits in its own process group (Ctrl-C reaches this process alone, which then ends
the children in order) and, on Linux, is sent SIGTERM by the kernel when this process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import tenacity

from services.errors import InvalidConfig, Unreachable

from ..exits import ChildDied
from ..race import race

HOST = "127.0.0.1"
HEALTHY_S = 60.0  # how long a controller may take to start
ASK_S = 0.05  # how often it is asked meanwhile
TERMINATE_S = 5.0  # how long a child has between SIGTERM and SIGKILL
TAIL_LINES = 15
PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """One child process."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]
    ended: asyncio.Future[int]  # its exit status, negative for a signal

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines)

    async def died(self) -> None:
        """Wait until it ends, which is before its time: raises ChildDied with the tail of its log."""
        status = await asyncio.shield(self.ended)
        raise ChildDied(f"{self.name} ended with status {status}; the end of its log:\n{self.tail()}")

    async def terminate(self) -> None:
        """SIGTERM, then SIGKILL after `TERMINATE_S`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.ended.done():
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            await asyncio.wait([self.ended], timeout=TERMINATE_S)


@dataclass
class Children:
    """The children of one command, with a folder for their logs."""

    folder: Path
    all: list[Child] = field(default_factory=list)

    def start(self, name: str, module: str, *arguments: str, **environment: str) -> Child:
        """Start `python -m module arguments`, with `environment` in place of this process's METIS_* variables."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=clean_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        child = Child(name, log, process, asyncio.get_running_loop().create_future())
        self.all.append(child)
        threading.Thread(target=_reap, args=(child, asyncio.get_running_loop()), daemon=True).start()
        return child

    async def any_died(self) -> None:
        """Wait until all of them end well; raises ChildDied at the first that does not."""
        running = {child.ended for child in self.all}
        while running:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for child in self.all:
                if child.ended.done() and child.ended.result() != 0:
                    await child.died()

    async def ended(self, within_s: float) -> bool:
        """Whether all of them end by themselves within `within_s` seconds."""
        if not self.all:
            return True
        _, running = await asyncio.wait([child.ended for child in self.all], timeout=within_s)
        return not running


@dataclass(frozen=True)
class LocalController:
    """A controller that this process started."""

    url: str
    process: Child


@asynccontextmanager
async def children(folder: Path) -> AsyncIterator[Children]:
    """Children that are ended on the way out: learners (started last) before the controller."""
    started = Children(folder)
    try:
        yield started
    finally:
        for child in started.all:
            if not child.ended.done():
                child.process.send_signal(signal.SIGCONT)  # a stopped process cannot take a SIGTERM
        await asyncio.gather(*(child.terminate() for child in reversed(started.all)))


async def start_controller(
    started: Children, model_store: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> LocalController:
    """Start a controller on the loopback interface, with `environment` as its other settings; wait until it answers.

    Raises InvalidConfig when the port is taken, ChildDied when it ends, Unreachable when it takes too long.
    """
    port = usable_port(port)
    data = started.folder / "controller"
    arguments = ("--host", HOST, "--port", str(port), "--data-dir", str(data), "--model-store", model_store)
    process = started.start("controller", "controller_api", *arguments, **(environment or {}))
    url = f"http://{HOST}:{port}"
    await race(_healthy(url), process.died())
    return LocalController(url, process)


def usable_port(port: int) -> int:
    """`port` if nothing listens on it; for 0 one that is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is in use" if taken else f"cannot be used: {error.strerror}"
            raise InvalidConfig(f"port {port} {why}; --port 0 takes a free one", port=port) from error
        return int(probe.getsockname()[1])


def clean_environment(given: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `given` as its only METIS_* settings (its tokens are for another federation)."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("METIS_")}
    kept.setdefault("OMP_NUM_THREADS", "1")  # several learners share the cores of one machine
    return {**kept, "PYTHONUNBUFFERED": "1", **given}


async def _healthy(url: str) -> None:
    """Ask until the controller answers that it is well."""
    attempts = tenacity.AsyncRetrying(
        wait=tenacity.wait_fixed(ASK_S),
        stop=tenacity.stop_after_delay(HEALTHY_S),
        retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            async for attempt in attempts:
                with attempt:
                    (await http.get(f"{url}/healthz")).raise_for_status()
    except tenacity.RetryError as error:
        raise Unreachable(f"the controller at {url} was not healthy after {HEALTHY_S:g} s", url=url) from error


def _reap(child: Child, loop: asyncio.AbstractEventLoop) -> None:
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    child.process.returncode = code  # Popen must not wait for a pid that another process may have by now

    def tell() -> None:
        if not child.ended.done():
            child.ended.set_result(code)

    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
        loop.call_soon_threadsafe(tell)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
