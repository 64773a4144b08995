"""What an agent keeps between restarts, in a file that only its user may read: its id and token, or, while it enrols,
the key under which it may ask for them again.

The file is locked while the agent lives, so that two processes of one name never share an identity. It is replaced as a
whole: an agent that is killed meanwhile leaves what was there before, or what was to be there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from services.process import open_private

try:
    import fcntl
except ImportError:  # not on Windows: there two processes of one name are not told apart
    fcntl = None  # type: ignore[assignment]

ALIVE_EVERY_S = 5.0


@dataclass(frozen=True)
class Identity:
    """The identity that a controller gave."""

    learner_id: str
    token: str = field(repr=False)
    webhook_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Enrolment:
    """An enrolment whose answer has not come: the same key again gives the same learner, if there is one already."""

    idempotency_key: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)


def state_path(folder: Path, name: str, controller: str, suffix: str) -> Path:
    """`<folder>/learner-<name>-<hash of the controller's url>.<suffix>`."""
    safe = re.sub(r"[^0-9A-Za-z_-]", "_", name)
    mark = hashlib.sha256(f"{controller}\0{name}".encode()).hexdigest()[:8]
    return folder / f"learner-{safe}-{mark}.{suffix}"


class StateFile:
    """`state_path` with the suffix json, mode 0600."""

    def __init__(self, folder: Path, name: str, controller: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._alive = folder / "alive"
        self._touched = 0.0
        self._path = state_path(folder, name, controller, "json")
        self._held = _held(self._path)
        self.owned = fcntl is None or self._held is not None

    def load(self) -> Identity | Enrolment | None:
        """What was saved; None when that is nothing, or another process uses it."""
        if not self.owned:
            return None
        try:
            with _opened(self._path) as file:
                told = json.load(file)
            return Enrolment(**told) if "idempotency_key" in told else Identity(**told)
        except (ValueError, TypeError):
            return None

    def save(self, kept: Identity | Enrolment | None) -> None:
        """Keep an identity, or the key of an enrolment, in place of what was kept; None forgets it.

        What is to be kept is on the disk when this returns. Raises OSError; then what was kept before is still there.
        """
        if not self.owned:
            return
        if kept is None:
            with _opened(self._path) as file:
                file.truncate()
            return
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        file = _opened(new, os.O_EXCL)
        try:
            _lock(file)  # before it has the name by which another process looks for it
            json.dump(asdict(kept), file)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows lets nobody move an open file
            os.replace(new, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                file.close()
            raise
        if fcntl is not None:
            self._held, before = file, self._held
            if before is not None:
                before.close()
            _write_through(self._path.parent)

    def touch(self) -> None:
        """Leave a sign of life for health checks: the time of `<folder>/alive`."""
        now = time.monotonic()
        if now - self._touched >= ALIVE_EVERY_S:
            self._touched = now
            with contextlib.suppress(OSError):
                file = open_private(self._alive, os.O_WRONLY | os.O_CREAT)
                try:
                    os.write(file, b"\n")  # over the last one: that moves the time, on every system
                finally:
                    os.close(file)

    def close(self) -> None:
        """Let the lock go, and the file with it."""
        self.owned = False
        if self._held is not None:
            self._held.close()


def _held(path: Path) -> IO[str] | None:
    """The file that is there, open and locked; None while another process has it, and where there are no locks."""
    while fcntl is not None:  # again when the file was replaced in between: who did that has locked the new one
        file = _opened(path)
        if not _lock(file):
            file.close()
            return None
        if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
            return file
        file.close()
    return None


def _opened(path: Path, flags: int = 0) -> IO[str]:
    """A file that only its user may read, made if it is not there."""
    return os.fdopen(open_private(path, os.O_RDWR | os.O_CREAT | flags), "r+", encoding="utf-8")


def _lock(file: IO[str]) -> bool:
    """Lock a file for as long as it is open; False when another process has."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _write_through(folder: Path) -> None:
    """Bring to the disk that a file has another name."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
