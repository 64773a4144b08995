"""A run as callers see it: what the federation shows, and what holds up the work that is done outside of it."""

from __future__ import annotations

import time

from services import messages as m
from services.federation import RunState

from .runtime import Runtime


def run_message(runtime: Runtime, run: RunState) -> m.Run:
    """The run; what it waits for includes a model store or a disk that cannot take what is new."""
    shown, held_up = runtime.federation.run_message(run, runtime.now), runtime.calls.held_up
    if held_up is None and runtime.keeper is not None:
        held_up = runtime.keeper.held_up
    if held_up is None or shown.waiting_for is None:
        return shown
    return shown.model_copy(update={"waiting_for": f"{shown.waiting_for}; {held_up.text(time.monotonic())}"})
