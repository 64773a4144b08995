"""`metis status`, `learners`, `rounds` and `logs`: what the controller says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Annotated

import typer

from services.process import plain

from .. import exits
from . import options
from .options import ControllerOptions, Json, RunId, grouped

if TYPE_CHECKING:
    from services import messages as m
    from services.rest import Client

    from ..session import Connection

QUIET_S = 1.0  # the log has no end: what is held has been told when nothing came for so long


@grouped
def status(to: ControllerOptions, as_json: Json = False) -> None:
    """The federation at a glance: state, what it waits for, learners, run."""
    exits.run(_status(to.connection(), as_json))


@grouped
def learners(to: ControllerOptions, as_json: Json = False) -> None:
    """Who is in the federation."""
    exits.run(_learners(to.connection(), as_json))


@grouped
def rounds(to: ControllerOptions, run: RunId = "latest", as_json: Json = False) -> None:
    """The rounds of a run, with their scores."""
    exits.run(_rounds(to.connection(), run, as_json))


@grouped
def logs(
    to: ControllerOptions,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C")] = False,
    as_json: Json = False,
) -> None:
    """The federation's log, as far back as the controller keeps it. With --json a JSON document a line."""
    exits.run(_logs(to.connection(), follow, as_json))


async def _status(to: Connection, as_json: bool) -> None:
    from ..show import tables

    async with to.client(options.READ_PATIENCE_S) as client:
        found = await client.federation()
        runs = [] if found.run is None else await client.rounds(found.run.id)
    if as_json:
        options.print_json(found.model_dump(mode="json"))
    else:
        print(plain(tables.status(to.url, found, runs)))


async def _learners(to: Connection, as_json: bool) -> None:
    from ..show import tables

    async with to.client(options.READ_PATIENCE_S) as client:
        found = await client.learners()
    if as_json:
        options.print_json([learner.model_dump(mode="json", exclude={"token", "webhook_secret"}) for learner in found])
    else:
        print(plain(tables.learners(found)))


async def _rounds(to: Connection, run_id: str, as_json: bool) -> None:
    from ..show import tables

    async with to.client(options.READ_PATIENCE_S) as client:
        found, run = await client.rounds(run_id), await client.run(run_id)
    if as_json:
        options.print_json([one.model_dump(mode="json") for one in found])
    else:
        print(plain(tables.rounds(run, found)))


async def _logs(to: Connection, follow: bool, as_json: bool) -> None:
    async with to.client(options.READ_PATIENCE_S) as client, contextlib.aclosing(_events(client, follow)) as log:
        async for event in log:
            text = f"{event.at}  {event.kind:<17} {event.text}"
            print(json.dumps(event.model_dump(mode="json")) if as_json else plain(text), flush=follow)


async def _events(client: Client, follow: bool) -> AsyncGenerator[m.Event, None]:
    """Every event that is held, oldest first; with `follow` those to come as well, for ever."""
    await client.federation()  # a controller that is not there is found out before the quiet is measured
    async with contextlib.aclosing(_held(client)) as source:
        while True:
            try:
                async with asyncio.timeout(None if follow else QUIET_S):
                    event = await anext(source)
            except TimeoutError:
                return
            yield event


async def _held(client: Client) -> AsyncGenerator[m.Event, None]:
    """The log from its beginning, as a generator that can be closed."""
    async for event in client.events(after=0):
        yield event
