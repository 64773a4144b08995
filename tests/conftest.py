"""What tests of several packages share: an app in this process, a real controller process, bounded waiting."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
from fastapi import FastAPI

from controller_api.app import create_app
from controller_api.settings import Settings
from services import ModelStoreConfig
from services.rest import Client
from tests.redis_server import RedisServer, require_redis

URL = "http://localhost"
hypothesis.settings.register_profile("here", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("here")


@dataclass
class InProcess:
    """An app that runs in this process; `http` calls it, `client(token)` is the contract's client of it."""

    app: FastAPI
    http: httpx.AsyncClient

    def client(self, token: str | None = None) -> Client:
        """A client of the contract; close it, or leave it to the test's end."""
        return Client(URL, token, transport=httpx.ASGITransport(self.app), patience_s=5.0)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`: half of the tests' time goes by in waiting for processes."""
    return 2 * (os.cpu_count() or 1)


def folder_of_its_own() -> Path:
    """A new folder, removed with the process."""
    folder = tempfile.TemporaryDirectory(prefix="metis-test-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@asynccontextmanager
async def in_process(settings: Settings | None = None, **stores: Any) -> AsyncIterator[InProcess]:
    """The controller's app with its background work, without a socket."""
    settings = settings or Settings(model_store="InMemory", log_level="error")
    if settings.data_dir == Path(".metis"):
        settings = settings.model_copy(update={"data_dir": folder_of_its_own()})
    app = create_app(settings, model_store_config=stores.get("store") or ModelStoreConfig())
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as http:
            yield InProcess(app, http)


@pytest.fixture
async def controller() -> AsyncIterator[InProcess]:
    """An open controller (no tokens) in this process."""
    async with in_process() as running:
        yield running


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    """Wait until `await condition()` is true, within a bound; returns what it gave."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.02)
        return found


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server that all tests share: take a prefix of your own, and leave it running."""
    require_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"), free_port())
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """`own_redis("--requirepass", "…")`: a Redis server of the test's own, which it may kill and start again."""
    require_redis()
    servers: list[RedisServer] = []

    def launch(*flags: str) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", free_port(), *flags))
        return servers[-1]

    yield launch
    for server in servers:
        server.kill()


class Process:
    """A program of this project as a child, its output in a file; ended with the test."""

    def __init__(self, log: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> None:
        self.log = log
        clean = {key: value for key, value in os.environ.items() if not key.startswith("METIS_")}
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                env={**clean, "PYTHONUNBUFFERED": "1", **environment},
            )

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit status; fails with the end of its output when it does not end in time."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.tail()}") from None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        if self.child.poll() is None:
            self.child.send_signal(number)

    def tail(self, lines: int = 30) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self) -> None:
        """End it for good."""
        self.kill(signal.SIGTERM)
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            self.child.wait(5)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`start("name", "-m", "controller_api", …, METIS_X="…")`: a child process that ends with the test."""
    running: list[Process] = []

    def launch(name: str, *arguments: str, cwd: Path | None = None, **environment: str) -> Process:
        environment.setdefault("METIS_STATE_DIR", str(tmp_path / "state"))
        child = Process(tmp_path / f"{name}.log", *arguments, cwd=cwd or tmp_path, **environment)
        running.append(child)
        return child

    yield launch
    for child in reversed(running):
        child.end()


def digits_learner(start: Callable[..., Process], url: str, index: int, shares: int, name: str = "learner") -> Process:
    """The agent `name-<index>` as a process, with that share of the digits."""
    what = ("-m", "learner_agent", "--controller", url, "--learner", "learner_agent.digits:digits_learner")
    called = f"{name}-{index}"
    return start(called, *what, "--name", called, METIS_SHARD=str(index), METIS_NUM_SHARDS=str(shares))


def digits_learners(
    start: Callable[..., Process], url: str, count: int, name: str = "learner", shares: int | None = None
) -> list[Process]:
    """The first `count` of them."""
    return [digits_learner(start, url, index, shares or count, name) for index in range(count)]


@dataclass
class Served:
    """A controller process and its address."""

    process: Process
    url: str
    port: int


@pytest.fixture
def served(start: Callable[..., Process], tmp_path: Path) -> Served:
    """An open controller process on a free port, ready."""
    return serve(start, tmp_path)


def serve(start: Callable[..., Process], folder: Path, *flags: str, port: int = 0, **environment: str) -> Served:
    """Start a controller process and wait until it answers."""
    port = port or free_port()
    where = ("--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder / "controller"))
    process = start("controller", "-m", "controller_api", *where, *flags, **environment)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.child.poll() is not None:
            raise AssertionError(f"the controller ended:\n{process.tail()}")
        try:
            if httpx.get(f"{url}/healthz", timeout=2).status_code == 200:
                return Served(process, url, port)
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"the controller does not answer:\n{process.tail()}")
