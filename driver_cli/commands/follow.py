"""`metis watch` and `metis next-round`: following a run that another driver started."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import exits
from . import options
from .options import Controller, Json, RootCertificate, RunId, Token, TokenFile

if TYPE_CHECKING:
    from ..connection import Connection


def watch(
    run: RunId = "latest",
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """Watch a run to its end. Ctrl-C leaves the run alone. With --json its results are printed at the end."""
    results = exits.run(_watch(options.connect(controller, token, token_file, root_certificate), run, as_json))
    if as_json:
        options.print_json(results)
    raise typer.Exit(exits.FAILED if results["run"]["state"] == "failed" else exits.DONE)


def next_round(
    run: RunId = "current",
    wait: Annotated[bool, typer.Option(help="Wait until the round has closed, and show it")] = True,
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """Start the next round of a run posted with advance = "manual"."""
    text, answer = exits.run(_next_round(options.connect(controller, token, token_file, root_certificate), run, wait))
    if as_json:
        options.print_json(answer)
    else:
        print(text)


async def _watch(to: Connection, run_id: str, as_json: bool) -> dict[str, Any]:
    from ..session import RunHandle
    from ..show import display_for

    with display_for(sys.stderr if as_json else sys.stdout) as display:
        async with RunHandle(to, display) as handle:
            await handle.reach(options.READ_PATIENCE_S)
            await handle.attach(run_id)
            return await handle.watch()


async def _next_round(to: Connection, run_id: str, wait: bool) -> tuple[str, dict[str, Any]]:
    from ..session import RunHandle
    from ..show import Silent, words

    async with RunHandle(to, Silent()) as handle:
        await handle.reach(options.READ_PATIENCE_S)
        if not wait:
            run = await handle.client.next_round(run_id)
            return f"run {run.id} was told to go on; `metis watch` follows it", run.model_dump(mode="json")
        await handle.attach(run_id)
        closed = await handle.next_round()
        return words.round_line(handle.view.run.config, closed), closed.model_dump(mode="json")
