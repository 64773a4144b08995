"""`Ownership`: one process has a folder, and it is free again when that process is dead, however it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.errors import InvalidConfig
from services.state import Ownership

ROOT = Path(__file__).parents[2]
HOLD = """
import pathlib, sys
from services.state.ownership import Ownership
held = Ownership(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
Hold = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """`hold()`: another process that has the folder `<tmp_path>/data`, until its standard input closes."""
    running: list[subprocess.Popen[str]] = []

    def launch() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "data")]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        running.append(child)
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        return child

    yield launch
    for child in running:
        child.kill()
        child.communicate()


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Nobody else may look into it; a folder that is there keeps its mode."""
    there = tmp_path / "there"
    there.mkdir(mode=0o750)
    for folder, mode in ((tmp_path / "deep" / "new", 0o700), (there, 0o750)):
        Ownership(folder).close()
        assert folder.stat().st_mode & 0o777 == mode
        assert (folder / "lock").stat().st_mode & 0o077 == 0


def test_another_process_is_named(hold: Hold, tmp_path: Path) -> None:
    """The error says the folder, the process and what to do; the owner is not disturbed."""
    owner = hold()
    for _ in range(2):
        with pytest.raises(InvalidConfig) as caught:
            Ownership(tmp_path / "data")
        assert caught.value.detail == (
            f"another controller (pid {owner.pid}) works on the folder {tmp_path / 'data'}:"
            " stop it, or give this one another --data-dir"
        )
    assert (tmp_path / "data" / "lock").read_text() == f"{owner.pid}\n"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_dead_owner_has_nothing(hold: Hold, tmp_path: Path, end: signal.Signals | None) -> None:
    """Killed, terminated or gone by itself: the folder is free, though the lock's file and its pid are still there."""
    owner = hold()
    if end:
        owner.send_signal(end)
    owner.communicate(timeout=20)
    assert (tmp_path / "data" / "lock").read_text() == f"{owner.pid}\n"
    mine = Ownership(tmp_path / "data")
    assert (tmp_path / "data" / "lock").read_text() == f"{os.getpid()}\n"
    mine.close()


def test_a_frozen_owner_has_it_still(hold: Hold, tmp_path: Path) -> None:
    """A process that is stopped is not dead."""
    owner = hold()
    owner.send_signal(signal.SIGSTOP)
    with pytest.raises(InvalidConfig, match=f"pid {owner.pid}"):
        Ownership(tmp_path / "data")


def test_children_of_the_owner_do_not_hold_it(tmp_path: Path) -> None:
    """A program that it started, and that goes on, has no part of it."""
    mine = Ownership(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    mine.close()
    Ownership(tmp_path).close()
    child.communicate()


def test_one_process_has_it_once(tmp_path: Path) -> None:
    """Two federations in one process are two; after `close`, which may be called again, the next one has it."""
    first = Ownership(tmp_path)
    with pytest.raises(InvalidConfig, match=f"pid {os.getpid()}"):
        Ownership(tmp_path)
    first.close()
    first.close()
    Ownership(tmp_path).close()


def test_a_lock_without_a_pid_is_held_nevertheless(hold: Hold, tmp_path: Path) -> None:
    """A full disk took no text, or somebody wrote into the file: the error names the folder."""
    hold()
    (tmp_path / "data" / "lock").write_text("?")
    with pytest.raises(InvalidConfig, match="another controller works on the folder"):
        Ownership(tmp_path / "data")


def test_when_an_owner_was_alive(hold: Hold, tmp_path: Path) -> None:
    """The time of the last touch before this owner's first; None where nobody was."""
    first = Ownership(tmp_path / "data")
    assert first.alive_at() is None
    first.touch()
    assert first.alive_at() is None
    assert (tmp_path / "data" / "lock").stat().st_mtime == pytest.approx(time.time(), abs=60)
    first.close()
    os.utime(tmp_path / "data" / "lock", (1000.0, 2000.5))
    second = Ownership(tmp_path / "data")
    assert second.alive_at() == 2000.5
    second.touch()
    second.close()
    owner = hold()
    owner.kill()
    owner.communicate()
    third = Ownership(tmp_path / "data")
    assert third.alive_at() == pytest.approx(time.time(), abs=60)
    third.close()


def test_a_folder_in_which_nobody_can_write_is_told(tmp_path: Path) -> None:
    """Where a file has the folder's name, the error says so; after it nothing is held."""
    (tmp_path / "data").write_text("a file")
    for folder in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(InvalidConfig, match=f"cannot keep state in the folder {folder}"):
            Ownership(folder)


@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, plant: str) -> None:
    """What it leads to is neither locked nor written over; the error says what to do."""
    dear, lock = tmp_path / "dear", tmp_path / "data" / "lock"
    dear.write_text("what stood there")
    lock.parent.mkdir()
    getattr(lock, plant)(dear)
    with pytest.raises(InvalidConfig, match=f"cannot keep state in the folder {lock.parent}: {lock} .*: put"):
        Ownership(lock.parent)
    assert dear.read_text() == "what stood there"
    lock.unlink()
    Ownership(lock.parent).close()
