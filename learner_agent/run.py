"""`app(learner, client_params=…)`: run a learner until its federation is over. What a user's script calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from services import ClientParams, ServerParams
from services import messages as m
from services.errors import FederationError
from services.rest import Client

from .agent import Agent
from .learner import Learner
from .sources import poll
from .state import StateFile

log = structlog.get_logger("learner")


def app(
    learner: Learner,
    client_params: ClientParams | None = None,
    server_params: ServerParams | None = None,
    *,
    controller: str | None = None,
    name: str | None = None,
    token: str | None = None,
    state_dir: str | Path | None = None,
    labels: Mapping[str, str] | None = None,
    num_training_examples: int | None = None,
) -> None:
    """Take part in a federation with this learner; blocks until it is over, SIGINT or SIGTERM.

    `client_params` (or `controller`, a URL) says where the controller is; `server_params` turns on webhook mode: the
    agent listens there and the controller tells it when to poll. `token` is the enrolment token (METIS_ENROLL_TOKEN).
    With a `name` the identity survives restarts, in `state_dir` (METIS_STATE_DIR, default .metis).
    Raises FederationError when the controller refuses for good.
    """
    start_log()
    limit_threads()
    where = controller or (client_params or ClientParams()).url
    arguments = (learner, where, client_params, server_params, name, token, state_dir, labels, num_training_examples)
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_until_signal(*arguments))


async def _until_signal(*arguments: Any) -> None:
    """Run the agent; SIGINT and SIGTERM make it leave."""
    running = asyncio.current_task()
    assert running is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):  # Windows; not the main thread
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await _run(*arguments)


async def _run(
    learner: Learner,
    controller: str,
    client_params: ClientParams | None,
    server_params: ServerParams | None,
    name: str | None,
    token: str | None,
    state_dir: str | Path | None,
    labels: Mapping[str, str] | None,
    num_training_examples: int | None,
) -> None:
    folder = Path(state_dir or os.environ.get("METIS_STATE_DIR") or ".metis")
    state = StateFile(folder, name, controller) if name else None
    client = Client(
        controller,
        token or secret("METIS_ENROLL_TOKEN"),
        root_certificate=client_params.root_certificate if client_params else os.environ.get("METIS_ROOT_CERTIFICATE"),
        patience_s=None,
        on_answer=state.touch if state else None,
        on_retry=_tell_retry,
    )
    request = m.JoinRequest(name=name, labels=dict(labels or {}), num_training_examples=num_training_examples)
    async with client:
        await Agent(learner, client, poll, request, state=state).run()


def secret(variable: str) -> str | None:
    """A secret from the environment, or from the file that `<variable>_FILE` names. Raises OSError."""
    if value := os.environ.get(variable):
        return value
    path = os.environ.get(f"{variable}_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else None


def _tell_retry(error: BaseException, seconds: float) -> None:
    detail = error.detail if isinstance(error, FederationError) else repr(error)
    log.warning("waiting for the controller", why=detail, again_in_s=round(seconds, 1))


def limit_threads() -> None:
    """One thread for torch unless the user chose: with two, learners that share a machine were 4 to 17 times dearer."""
    torch = sys.modules.get("torch")
    chosen = any(os.environ.get(key) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    if torch is not None and not chosen and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def start_log() -> None:
    """Lines for people on standard error, unless the application configured its own log."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
