"""Named places at which a process can be made to die, for the tests of what survives that.

Nothing happens unless the process was armed at its start (`METIS_FAILPOINT`).
"""

from __future__ import annotations

import os
import signal

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
_armed: dict[str, int] = {}  # point to passes that are left


def arm(text: str) -> None:
    """Die at a point: `name`, or `name:3` for the third time that it is reached. Raises ValueError."""
    name, _, times = text.partition(":")
    if name not in POINTS:
        raise ValueError(f"there is no failpoint {name!r}: {', '.join(POINTS)}")
    _armed[name] = int(times or 1)


def reach(name: str) -> None:
    """The process is at this point."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
