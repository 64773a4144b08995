"""What an agent keeps between restarts: its id and token, in a file that only its user may read.

The file is locked while the agent lives, so that two processes of one name never share an identity.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there two processes of one name are not told apart
    fcntl = None  # type: ignore[assignment]

ALIVE_EVERY_S = 5.0


@dataclass(frozen=True)
class Saved:
    """The identity that a controller gave."""

    learner_id: str
    token: str = field(repr=False)
    webhook_secret: str | None = field(default=None, repr=False)


class StateFile:
    """`<folder>/learner-<name>-<hash of the controller's url>.json`, mode 0600."""

    def __init__(self, folder: Path, name: str, controller: str) -> None:
        safe = re.sub(r"[^0-9A-Za-z_-]", "_", name)
        mark = hashlib.sha256(f"{controller}\0{name}".encode()).hexdigest()[:8]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._alive = folder / "alive"
        self._touched = 0.0
        self._file = os.fdopen(os.open(folder / f"learner-{safe}-{mark}.json", os.O_RDWR | os.O_CREAT, 0o600), "r+")
        self.owned = self._lock()

    def _lock(self) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def load(self) -> Saved | None:
        """The saved identity; None when there is none, or another process uses it."""
        if not self.owned:
            return None
        self._file.seek(0)
        try:
            return Saved(**json.load(self._file))
        except (ValueError, TypeError):
            return None

    def save(self, identity: Saved | None) -> None:
        """Keep an identity; None forgets it."""
        if not self.owned:
            return
        self._file.seek(0)
        self._file.truncate()
        if identity is not None:
            json.dump(asdict(identity), self._file)
        self._file.flush()

    def touch(self) -> None:
        """Leave a sign of life for health checks: the time of `<folder>/alive`."""
        now = time.monotonic()
        if now - self._touched >= ALIVE_EVERY_S:
            self._touched = now
            with contextlib.suppress(OSError):
                self._alive.touch()

    def close(self) -> None:
        """Let the lock go."""
        self._file.close()
