"""`app(learner, client_params=…)`: run a learner until its federation is over. What a user's script calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services import ClientParams, ServerParams
from services import messages as m
from services.errors import FederationError
from services.process import end_soon, on_signals, secret, start_log, switched_on
from services.rest import Client, in_clear

from .agent import Agent, LearnerAtWork, Listener, Source, StateFile, Webhook, Work, poll, state_path
from .learner import Learner

log = structlog.get_logger("learner")
TRACEBACK, MESSAGE = "traceback", "message"
ENDED_BY_SIGNAL = 143  # exit status of a program that did not end by itself: 128 + SIGTERM


@dataclass(frozen=True)
class Membership:
    """In which federation a learner takes part, and as whom."""

    controller: str  # URL
    name: str | None = None
    token: str | None = field(default=None, repr=False)  # for enrolling
    root_certificate: str | None = None
    state_dir: str | Path = ".metis"
    labels: Mapping[str, str] = field(default_factory=dict)
    num_training_examples: int | None = None
    listen: ServerParams | None = None  # webhook mode
    callback_url: str | None = None
    require_tls: bool = False  # for the controller on another machine
    report: str = TRACEBACK  # what is told of a task that failed

    def __post_init__(self) -> None:
        if self.callback_url and self.listen is None:
            raise ValueError("a callback URL needs a place to listen for what comes to it")
        if self.require_tls and in_clear(self.controller):
            raise ValueError(
                f"TLS is required, and {self.controller} would get a token in clear: give an https address"
            )
        if self.report not in (TRACEBACK, MESSAGE):
            raise ValueError(f"METIS_REPORT is {TRACEBACK} or {MESSAGE}, not {self.report!r}")

    @property
    def request(self) -> m.JoinRequest:
        """How it introduces itself."""
        count = self.num_training_examples
        return m.JoinRequest(name=self.name, labels=dict(self.labels), num_training_examples=count)

    @property
    def local_file(self) -> Path | None:
        """Where its local tensors are kept between restarts, and beside them (`.own`) what it holds of an algorithm;
        nowhere for one without a name."""
        return state_path(Path(self.state_dir), self.name, self.controller, "local") if self.name else None


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
    callback_url: str | None = None,
) -> None:
    """Take part in a federation with this learner; blocks until it is over, SIGINT or SIGTERM.

    `client_params` (or `controller`, a URL) says where the controller is; `server_params` turns on webhook mode: the
    agent listens there and the controller tells it when to poll, at `callback_url` where that is not the address of
    `server_params` (a proxy in between). `token` is the enrolment token (METIS_ENROLL_TOKEN).
    With a `name` the identity survives restarts, in `state_dir` (METIS_STATE_DIR, default .metis). Of a task that
    failed the controller is told a line and a traceback, with METIS_REPORT=message the line alone.
    In a thread that is not the main one it takes no signals. Where an event loop runs already, as in a notebook, call
    it in a thread: `await asyncio.to_thread(app, learner, ...)`.
    Raises FederationError when the controller refuses for good, OSError when it cannot listen or keep its identity,
    ValueError for another machine's http address while METIS_REQUIRE_TLS is set.
    """
    membership = Membership(
        controller=controller or (client_params or ClientParams()).url,
        name=name,
        token=token or secret("METIS_ENROLL_TOKEN"),
        root_certificate=client_params.root_certificate if client_params else os.environ.get("METIS_ROOT_CERTIFICATE"),
        state_dir=state_dir or os.environ.get("METIS_STATE_DIR") or ".metis",
        labels=labels or {},
        num_training_examples=num_training_examples,
        listen=server_params,
        callback_url=callback_url,
        require_tls=switched_on("METIS_REQUIRE_TLS"),
        report=os.environ.get("METIS_REPORT") or TRACEBACK,
    )
    take_part(LearnerAtWork(learner, membership.local_file), membership)


def take_part(work: Work, membership: Membership) -> None:
    """`app()` for work that is done wherever it is done. After a signal the process ends in a few seconds, also when
    its program has left threads or processes that go on."""
    if not structlog.is_configured():  # else the application has a log of its own
        start_log()
    if in_clear(membership.controller):
        log.warning("tokens travel in clear: give an https address", controller=membership.controller)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "an event loop runs in this thread, as in a notebook: call app() in a thread of its own there, `await"
            " asyncio.to_thread(app, learner, ...)`"
        )
    try:
        asyncio.run(_until_signal(work, membership))
    except (KeyboardInterrupt, asyncio.CancelledError):
        end_soon(ENDED_BY_SIGNAL)


async def _until_signal(work: Work, membership: Membership) -> None:
    """Run the agent; SIGINT and SIGTERM make it leave."""
    running = asyncio.current_task()
    assert running is not None
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(on_signals(running.cancel, signal.SIGINT, signal.SIGTERM))
        await (await _agent(work, membership, stack)).run()


async def _agent(work: Work, membership: Membership, stack: contextlib.AsyncExitStack) -> Agent:
    """The agent, and on `stack` what it needs: its state file, its connection, its ear for webhooks."""
    state: StateFile | None = None
    source: Source = poll
    request = membership.request
    if membership.name:
        state = StateFile(Path(membership.state_dir), membership.name, membership.controller)
        stack.callback(state.close)
    client = Client(
        membership.controller,
        membership.token,
        root_certificate=membership.root_certificate,
        patience_s=None,
        on_answer=state.touch if state else None,
        on_retry=_tell_retry,
    )
    await stack.enter_async_context(client)
    if membership.listen:
        listener = await stack.enter_async_context(Listener(membership.listen, membership.callback_url))
        request = request.model_copy(update={"callback_url": listener.url})
        source = Webhook(listener)
    return Agent(work, client, source, request, state=state, tells_traceback=membership.report == TRACEBACK)


def _tell_retry(error: BaseException, seconds: float) -> None:
    detail = error.detail if isinstance(error, FederationError) else repr(error)
    log.warning("waiting for the controller", why=detail, again_in_s=round(seconds, 1))
