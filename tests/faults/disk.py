"""A small disk of a test's own (tmpfs), to be filled to the last block, freed, and made read-only in part."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK = bytes(4096)
WANTED = "NOT TESTED: a full disk. Mounting a small tmpfs needs root; run the tests once as root."


class SmallDisk:
    """Mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        self._read_only: list[Path] = []

    @property
    def full(self) -> bool:
        """Whether it was filled and not freed."""
        return self._ballast.exists()

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes, or no block."""
        self.top_up()
        os.truncate(self._ballast, self._ballast.stat().st_size - leave)

    def top_up(self) -> None:
        """Take what became free since."""
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give all of it back."""
        self._ballast.unlink(missing_ok=True)

    def freeze(self, folder: Path) -> None:
        """Make a folder of it read-only."""
        _mount("--bind", str(folder), str(folder))
        self._read_only.append(folder)
        _mount("-o", "remount,bind,ro", str(folder))

    def thaw(self) -> None:
        """Undo that."""
        while self._read_only:
            subprocess.run(["umount", "-l", str(self._read_only.pop())], check=True)


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount one; the test is skipped, aloud, where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip(WANTED)
    try:
        _mount("-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder))
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip(WANTED)
    disk = SmallDisk(folder)
    try:
        yield disk
    finally:
        disk.thaw()
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
