"""`metis simulate`: a federation of many learners in one process, for research.

The controller's app, the agents and the driver are the real ones; only the network between them is left out. This is a
composition root: the one file of the driver that knows controller and learners, imported when it is used.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from services import messages as m
from services.config import TerminationSignals
from services.errors import InvalidConfig
from services.process import code_named, start_log

from ..session import Connection, DriverSession, run_config
from ..show import Display

if TYPE_CHECKING:
    from fastapi import FastAPI

    from learner_agent import Learner

URL = "http://localhost"  # of no port: every call stays in this process


@dataclass(frozen=True)
class Simulation:
    """`learners` of them, made by the factory that `learner` names; at most `concurrency` work at the same time."""

    learners: int
    concurrency: int
    rounds: int
    learner: str
    assignments: Sequence[str] = ()
    out: Path | None = None

    async def run(self, display: Display) -> dict[str, Any]:
        """The results of the run. Raises InvalidConfig for a factory that makes no learner."""
        made = make_learners(self.learner, self.learners)
        start_log(logging.WARNING)  # a hundred agents and a controller on one screen say only what went wrong
        with tempfile.TemporaryDirectory(prefix="metis-simulation-") as folder:
            app = _controller(folder)
            async with app.router.lifespan_context(app), AsyncExitStack() as clients, asyncio.TaskGroup() as group:
                await self._start_agents(app, made, clients, group)
                return await self._session(app).drive(display)

    async def _start_agents(
        self, app: FastAPI, made: Sequence[Learner], clients: AsyncExitStack, group: asyncio.TaskGroup
    ) -> None:
        from learner_agent.agent import Agent, LearnerAtWork, limit_threads, poll
        from services.process import Workers

        limit_threads()
        workers = Workers(self.concurrency)
        width = len(str(self.learners - 1))
        for index, learner in enumerate(made):
            client = await clients.enter_async_context(_connection(app).client(patience_s=60.0))
            request = m.JoinRequest(name=f"learner-{index:0{width}}")
            group.create_task(Agent(LearnerAtWork(learner), client, poll, request, workers=workers).run())

    def _session(self, app: FastAPI) -> DriverSession:
        return DriverSession(
            _connection(app),
            self.learners,
            TerminationSignals(federation_rounds=self.rounds),
            config={"name": "simulation", **run_config.of_options(self.assignments)},
            out=self.out,
            shutdown=True,  # the agents end by it
        )


def make_learners(spec: str, count: int) -> list[Learner]:
    """`count` learners of `module:factory`, called with (index, count); the working directory is importable."""
    factory = resolve(spec)
    try:
        return [factory(index, count) for index in range(count)]
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"--learner {spec}: called with (index, {count}): {error}", got=spec) from error


def resolve(spec: str) -> Callable[[int, int], Learner]:
    """The factory that `module:attribute` names. Only ever called with what stands on the local command line."""
    example = "learner_agent.digits:DigitsLearner"
    try:
        found: Callable[[int, int], Learner] = code_named(spec, example)
    except (ImportError, AttributeError) as error:
        why = f"--learner {spec}: {error}; write it as module:factory, for example {example}"
        raise InvalidConfig(why, got=spec) from error
    except ValueError as error:
        raise InvalidConfig(f"--learner {spec}: {error}", got=spec) from error
    return found


def _controller(folder: str) -> FastAPI:
    """An app without tokens, whatever the environment says."""
    from controller_api.app import create_app
    from controller_api.settings import Settings

    return create_app(
        Settings(
            host="127.0.0.1",
            data_dir=Path(folder),
            model_store="InMemory",
            enroll_token=None,
            operator_token=None,
            viewer_token=None,
            root_certificate=None,
            server_certificate=None,
            private_key=None,
        )
    )


def _connection(app: FastAPI) -> Connection:
    """The way to the app within this process. Its events come from the log itself: the transport buffers streams."""

    async def events(after: int) -> AsyncIterator[m.Event]:
        async for batch in app.state.runtime.follow(after):
            for event in batch:
                yield event

    return Connection(URL, transport=httpx.ASGITransport(app, raise_app_exceptions=False), events=events)
