"""A state file that a controller cannot go on from: it says so in one line, with file and reason, and never listens."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from services.state.database import FORMAT, NAME
from tests.conftest import Process, serve
from tests.faults.figures import record

Start = Callable[..., Process]
Damage = Callable[[Path], None]
HOST = "127.0.0.1"
ENDS_S = 30


def truncate(path: Path) -> None:
    """Lose the second half."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Lose all of it."""
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    """Another's words, in the same length."""
    path.write_bytes(b"no database " * (path.stat().st_size // 12))


def bump(path: Path) -> None:
    """Of a program that is not written yet."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={FORMAT + 1}")


DAMAGES: dict[Damage, str] = {
    truncate: "cannot be read: ",
    empty: "is damaged: it is empty",
    overwrite: "cannot be read: ",
    bump: f"has format {FORMAT + 1}, this program knows formats up to {FORMAT}",
}


@contextmanager
def held_port() -> Iterator[int]:
    """A port that nobody else can listen on meanwhile: who tries says so and ends, before anything else."""
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        yield int(holder.getsockname()[1])


def run_on(folder: Path) -> subprocess.CompletedProcess[str]:
    """A controller on the folder, and on a port that it cannot open, until its end."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("METIS_")}
    with held_port() as port:
        where = ("--host", HOST, "--port", str(port), "--data-dir", str(folder))
        command = [sys.executable, "-m", "controller_api", *where]
        return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=ENDS_S, check=False)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_state_file_that_cannot_be_read_is_refused(start: Start, tmp_path: Path, damage: Damage) -> None:
    """Exit status 2, one line, no traceback; the file is left as it is, for whoever mends it, and models too."""
    served = serve(start, tmp_path)
    served.process.kill(signal.SIGTERM)
    assert served.process.wait(ENDS_S) == 0
    folder = tmp_path / "controller"
    whole = run_on(folder)
    assert whole.returncode not in (0, 2), whole.stderr  # it ends for its port, which one that reads its state gets to
    assert NAME not in whole.stderr
    (folder / "models" / "kept").write_bytes(b"what nobody knows of now")
    damage(folder / NAME)
    before = (folder / NAME).read_bytes()
    done = run_on(folder)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for words in (f"{folder / NAME} {DAMAGES[damage]}", "another --data-dir"):
        assert words in line
    assert "Traceback" not in done.stdout + done.stderr
    assert "listening" not in done.stdout + done.stderr
    assert (folder / NAME).read_bytes() == before
    assert (folder / "models" / "kept").exists()
    record("state file damaged or newer", 1, 1, 0, 0)
