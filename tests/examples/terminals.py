"""A quickstart as people run it: one program a terminal, started one after the other, in whatever order."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Process

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS_SOMETHING_S = 120.0  # torch takes seconds to import, and more on a busy machine
ORDERS = {
    "as in the README": ("controller", "learner-1", "learner-2", "learner-3", "driver"),
    "the controller last": ("driver", "learner-3", "learner-2", "learner-1", "controller"),
    "the driver in between": ("learner-2", "driver", "controller", "learner-1", "learner-3"),
}
ANY_ORDER = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
ANOTHER_ORDER = pytest.mark.parametrize("order", list(ORDERS.values())[1:], ids=list(ORDERS)[1:])


@dataclass(frozen=True)
class Terminals:
    """Programs by name, each as its command line; run in `folder`."""

    start: Callable[..., Process]
    commands: Mapping[str, tuple[str, ...]]
    folder: Path

    def run(self, order: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """Start them in this order, wait until all have ended well; the results.

        The controller and the driver start when those before them have said something.
        """
        running: dict[str, Process] = {}
        for name in order:
            if name in ("controller", "driver"):
                for process in running.values():
                    _wait_for_words(process)
            running[name] = self.start(name, *self.commands[name], cwd=self.folder)
        deadline = time.monotonic() + seconds
        for name in ("driver", *sorted(running)):
            status = running[name].wait(max(5.0, deadline - time.monotonic()))
            assert status == 0, f"{name} ended with {status}:\n{running[name].tail()}"
        results: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return results


def _wait_for_words(process: Process) -> None:
    """Until it has written to its terminal: then its imports are done and it waits for the others."""
    deadline = time.monotonic() + SAYS_SOMETHING_S
    while not process.log.stat().st_size:
        assert process.child.poll() is None, f"{process.log.stem} ended without a word"
        assert time.monotonic() < deadline, f"{process.log.stem} does not say anything"
        time.sleep(0.02)


def skip_loudly(reason: str) -> None:
    """Skip, and say so where it is seen: a quiet run shows warnings, not reasons."""
    warnings.warn(f"NOT TESTED: {reason}", stacklevel=2)
    pytest.skip(reason)


def trained_together(results: dict[str, Any], rounds: int) -> bool:
    """Whether the run completed with that many rounds, each with an update and a score of all three learners."""
    three = ["learner-1", "learner-2", "learner-3"]
    return (
        results["run"]["state"] == "completed"
        and len(results["rounds"]) == rounds
        and all(one["completed"] == three for one in results["rounds"])
        and all(sorted(one["evaluation_metrics"]["learners"]) == three for one in results["rounds"])
    )
