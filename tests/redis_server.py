"""A real redis-server of the tests: a child process on a free port, its files in a temporary folder."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from services import ModelStoreConfig

WANTED = (
    "NOT TESTED: the model store Redis. It needs redis-server (Debian, Ubuntu: apt-get install redis-server) and the"
    " Python package redis (pip install 'metisfl-rest[redis]')."
)


def require_redis() -> None:
    """Skip the test, aloud, where there is no server or no client."""
    if shutil.which("redis-server") is None or importlib.util.find_spec("redis") is None:
        pytest.skip(WANTED)


class RedisServer:
    """Every write is on the disk before it is answered: what was acknowledged survives `kill`."""

    def __init__(self, folder: Path, port: int, *flags: str) -> None:
        self.port, self._folder, self._flags = port, folder, flags
        folder.mkdir(exist_ok=True)
        self.url = f"redis://127.0.0.1:{port}/0"
        self.start()

    def start(self) -> None:
        """Start it on the files that it left, and wait until it answers."""
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "")
        lasting = ("--appendonly", "yes", "--appendfsync", "always")
        with (self._folder / "redis.log").open("ab") as log:
            command = ["redis-server", *own, *lasting, *self._flags]
            self.child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self.child.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"no redis-server:\n{(self._folder / 'redis.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it at once."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        self.child.wait(20)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def store_config(request: pytest.FixtureRequest, name: str, folder: Path, lineage_length: int = 0) -> ModelStoreConfig:
    """The configuration of a store of the registry for one test, which `folder` is of; Redis on the tests' server."""
    if name != "Redis":
        return ModelStoreConfig(name, lineage_length)
    server: RedisServer = request.getfixturevalue("redis_server")
    return ModelStoreConfig(name, lineage_length, "127.0.0.1", server.port, model_store_prefix=f"{folder.name}:")
