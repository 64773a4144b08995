"""How many threads torch computes on: as many as it likes, and one where several learners share a machine."""

from __future__ import annotations

import os
import sys

import structlog

log = structlog.get_logger("learner")
CHOICES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def limit_threads() -> None:
    """Let torch compute on one thread: with two, learners that shared two cores were measured 4 to 17 times dearer.

    For programs that run several learners. The user's choice stays: OMP_NUM_THREADS or MKL_NUM_THREADS, and
    `torch.set_num_threads` where it can be told from torch's default (after `learner_agent.pytorch` was imported, or
    inside `train`).
    """
    if any(os.environ.get(key) for key in CHOICES):
        return
    torch = sys.modules.get("torch")
    if torch is None:
        os.environ["OMP_NUM_THREADS"] = "1"  # read by a torch that is imported later, and by child processes
        return
    helper = sys.modules.get("learner_agent.pytorch")
    if helper is None or torch.get_num_threads() == helper.DEFAULT_THREADS:
        torch.set_num_threads(1)


def tell_threads() -> bool:
    """Write into the log how many threads torch computes on; whether torch is there."""
    if (torch := sys.modules.get("torch")) is None:
        return False
    hint = "set OMP_NUM_THREADS=1 where several learners share this machine"
    log.info("torch computes on threads", threads=torch.get_num_threads(), change=hint)
    return True
