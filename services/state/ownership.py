"""`Ownership`: a folder of state belongs to one controller process, for as long as that process lives.

It holds `<folder>/lock` by flock(2), which the kernel gives back when the process dies, however it dies: the file that
stays means nothing. Its text is the pid of the last owner, for people; its time is when an owner was alive last.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from ..errors import InvalidConfig
from ..process import open_private

NAME = "lock"


class Ownership:
    """Of `folder`, which is made when it is absent. Take it before anything in the folder is read or removed."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidConfig, with what to do, when another process has the folder or nobody can write there."""
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file, new = _opened(folder / NAME)
        except OSError as error:
            raise InvalidConfig(f"cannot keep state in the folder {folder}: {error.strerror}") from error
        try:
            self._lock()
        except BaseException:
            os.close(self._file)
            raise
        self._alive_at = None if new else os.fstat(self._file).st_mtime
        self._ahead_s = max(time.time(), self._alive_at or 0.0) - time.monotonic()
        self._sign()

    def alive_at(self) -> float | None:
        """When an earlier owner was alive last, by the wall clock in seconds since 1970; None for a new folder."""
        return self._alive_at

    def touch(self) -> None:
        """This owner is alive now, and what came of the time before is written down. A disk that takes no change is no
        reason to stop."""
        with suppress(OSError):
            os.utime(self._file, (self.time(), self.time()))

    def time(self) -> float:
        """Wall-clock time, in seconds since 1970, which never runs back: not when the system's clock is set back while
        this owner lives, nor when it was before."""
        return self._ahead_s + time.monotonic()

    def close(self) -> None:
        """Give the folder back; again does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._file, 20, 0).decode(errors="replace").strip()
            whose = f"another controller (pid {pid})" if pid.isdigit() else "another controller"
            raise InvalidConfig(
                f"{whose} works on the folder {self.folder}: stop it, or give this one another --data-dir",
                folder=str(self.folder),
            ) from None
        except OSError as error:
            raise InvalidConfig(
                f"the folder {self.folder} cannot be locked: {error.strerror}; give another --data-dir"
            ) from error

    def _sign(self) -> None:
        text = f"{os.getpid()}\n".encode()
        with suppress(OSError):  # a full disk: the lock is held nevertheless
            os.pwrite(self._file, text, 0)  # over the old text, which needs no room
            os.ftruncate(self._file, len(text))
        if self._alive_at is not None:  # for an owner that does not get as far as `touch`
            with suppress(OSError):
                os.utime(self._file, (self._alive_at, self._alive_at))


def _opened(path: Path) -> tuple[int, bool]:
    """The file, and whether it was not there."""
    with suppress(FileNotFoundError):
        return open_private(path, os.O_RDWR), False
    return open_private(path, os.O_RDWR | os.O_CREAT), True
