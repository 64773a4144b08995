"""`metis status`, `learners`, `rounds` and `logs`: what the controller says of itself."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from .. import exits
from . import options
from .options import Controller, Json, RootCertificate, RunId, Token, TokenFile

if TYPE_CHECKING:
    from ..connection import Connection


def status(
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """The federation at a glance: state, what it waits for, learners, run."""
    exits.run(_status(options.connect(controller, token, token_file, root_certificate), as_json))


def learners(
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """Who is in the federation."""
    exits.run(_learners(options.connect(controller, token, token_file, root_certificate), as_json))


def rounds(
    run: RunId = "latest",
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """The rounds of a run, with their scores."""
    exits.run(_rounds(options.connect(controller, token, token_file, root_certificate), run, as_json))


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C")] = False,
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """The federation's log, as far back as the controller keeps it. With --json a JSON document a line."""
    exits.run(_logs(options.connect(controller, token, token_file, root_certificate), follow, as_json))


async def _status(to: Connection, as_json: bool) -> None:
    from ..show import tables

    async with to.client(options.READ_PATIENCE_S) as client:
        found = await client.federation()
        runs = [] if found.run is None else await client.rounds(found.run.id)
    if as_json:
        options.print_json(found.model_dump(mode="json"))
    else:
        print(tables.status(to.url, found, runs))


async def _learners(to: Connection, as_json: bool) -> None:
    from ..show import tables

    async with to.client(options.READ_PATIENCE_S) as client:
        found = await client.learners()
    if as_json:
        options.print_json([learner.model_dump(mode="json", exclude={"token", "webhook_secret"}) for learner in found])
    else:
        print(tables.learners(found))


async def _rounds(to: Connection, run_id: str, as_json: bool) -> None:
    from ..show import tables

    async with to.client(options.READ_PATIENCE_S) as client:
        found, run = await client.rounds(run_id), await client.run(run_id)
    if as_json:
        options.print_json([one.model_dump(mode="json") for one in found])
    else:
        print(tables.rounds(run, found))


async def _logs(to: Connection, follow: bool, as_json: bool) -> None:
    from .log import events

    async with to.client(options.READ_PATIENCE_S) as client, contextlib.aclosing(events(client, follow)) as log:
        async for event in log:
            text = event.model_dump_json() if as_json else f"{event.at}  {event.kind:<17} {event.text}"
            print(text, flush=follow)
