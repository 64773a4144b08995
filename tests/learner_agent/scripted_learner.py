"""Learners for tests that start `metis-learner`: what train() does stands in the run's train parameters.

`{"do": "fail"}` raises, `"exit"` calls sys.exit, `"die"` ends the process by SIGKILL, `"wait"` waits for the file that
`"until"` names (with `"quiet": true` without calling progress()), `"print"` prints. METIS_TEST_PIDS is a file to which
the process that trains adds its id.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from learner_agent import Learner, progress

WAIT_S = 30.0


class Pupil(Learner):
    """Adds 1 to a tensor of one value, and counts how often it trained."""

    names = ("w",)

    def __init__(self) -> None:
        self.times = 0

    def get_weights(self) -> list[Any]:
        """Zero."""
        return [np.zeros(1, np.float32)]

    def set_weights(self, weights: list[Any]) -> None:
        """Not needed."""

    def train(self, weights: list[Any], config: dict[str, Any]) -> Any:
        """See the module."""
        if pids := os.environ.get("METIS_TEST_PIDS"):
            with Path(pids).open("a") as out:
                out.write(f"{os.getpid()}\n")
        self.times += 1
        getattr(self, str(config.get("do", "nothing")))(config)
        return (
            [weights[0] + 1],
            {"loss": np.float32(0.5), "nothing": float("nan")},
            {"num_training_examples": 10, "pid": os.getpid(), "times": self.times},
        )

    def evaluate(self, weights: list[Any], config: dict[str, Any]) -> dict[str, Any]:
        """The value itself."""
        return {"score": weights[0][0], "num_evaluation_examples": 3}

    def nothing(self, config: dict[str, Any]) -> None:
        """The training is over at once."""

    def fail(self, config: dict[str, Any]) -> None:
        """An error of the learner's own."""
        raise ValueError("the rows of shard 7 are gone")

    def exit(self, config: dict[str, Any]) -> None:
        """A script's way to say that something is missing."""
        sys.exit("no accelerator")

    def die(self, config: dict[str, Any]) -> None:
        """As when the system is out of memory; not again when the process is a new one and `"once"` exists."""
        once = Path(config["once"])
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def wait(self, config: dict[str, Any]) -> None:
        """Until a file exists."""
        deadline = time.monotonic() + WAIT_S
        while not Path(config["until"]).exists() and time.monotonic() < deadline:
            if not config.get("quiet"):
                progress(epoch=1, batch=2, loss=0.25)
            time.sleep(0.01)

    def print(self, config: dict[str, Any]) -> None:
        """To standard output, which is not the agent's to use."""
        print("one two three")


def no_learner() -> object:
    """Of the wrong kind."""
    return object()


def broken() -> Pupil:
    """A factory that cannot make its learner."""
    raise ValueError("METIS_SHARD must be a whole number")


def exits() -> Pupil:
    """A factory that ends the process."""
    os._exit(3)
