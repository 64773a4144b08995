"""Named places at which a process can be made to die, or to stand still, for the tests of what survives that.

Nothing happens unless the process was armed at its start (`METIS_FAILPOINT`).
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

POINTS = (
    "learner-joined",  # made, not yet written down
    "learner-kept",  # written down, its token not yet told
    "run-started",
    "tasks-offered",
    "upload-begun",  # its head is read, nothing of its body
    "upload-whole",
    "update-stored",  # its bytes are in the store, it does not count yet
    "update-counted",  # it counts, and is not yet written down
    "update-kept",  # it is written down, and not yet acknowledged
    "aggregation-begun",
    "model-stored",  # the new model is in the store, the round does not know
    "round-changed",  # the round has its model, and that is not yet written down
    "round-kept",
)
SLEEP = "sleep="


@dataclass
class _Armed:
    passes: int = 1  # that are left
    sleeps_s: float | None = None  # None: it dies


_armed: dict[str, _Armed] = {}


def arm(text: str) -> None:
    """Die at a point: `name`, or `name:3` for the third time that it is reached; once. Raises ValueError.

    `name:sleep=2.5` and `name:3:sleep=2.5` block the thread that is there for 2.5 s instead, the event loop with it.
    """
    name, *rest = text.split(":")
    if name not in POINTS:
        raise ValueError(f"there is no failpoint {name!r}: {', '.join(POINTS)}")
    armed = _Armed()
    for one in rest:
        if one.startswith(SLEEP):
            armed.sleeps_s = float(one.removeprefix(SLEEP))
        else:
            armed.passes = int(one)
    _armed[name] = armed


def reach(name: str) -> None:
    """The process is at this point."""
    if name in _armed:
        armed = _armed[name]
        armed.passes -= 1
        if armed.passes == 0:
            if armed.sleeps_s is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                time.sleep(armed.sleeps_s)
