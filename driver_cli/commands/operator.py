"""`metis stop`, `metis shutdown` and `metis model get`: an operator's word to the controller."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import exits
from . import options
from .options import Controller, Json, RootCertificate, RunId, Token, TokenFile

if TYPE_CHECKING:
    from ..connection import Connection

model = typer.Typer(no_args_is_help=True, help="Community models.")


class Which(StrEnum):
    """Which community model of a run."""

    latest = "latest"
    best = "best"


def stop(
    run: RunId = "current",
    reason: Annotated[str, typer.Option(help="Stands in the results")] = "stopped by an operator",
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """End a run; the models that it made, and its results, are kept."""
    answer = exits.run(_stop(options.connect(controller, token, token_file, root_certificate), run, reason))
    if as_json:
        options.print_json(answer)
    else:
        print(f"run {answer['id']} {answer['state']}" + (f": {answer['reason']}" if answer["reason"] else ""))


def shutdown(
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
) -> None:
    """End the controller; its learners hear of it at their next poll and end too."""
    to = options.connect(controller, token, token_file, root_certificate)
    exits.run(_shutdown(to))
    print(f"the controller at {to.url} and its learners were told to end")


@model.command("get")
def model_get(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the weights document goes")],
    which: Annotated[Which, typer.Option(help="The newest, or the best by the run's metric")] = Which.latest,
    run: RunId = "latest",
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """Download a community model as a weights document (MessagePack)."""
    to = options.connect(controller, token, token_file, root_certificate)
    answer = exits.run(_model_get(to, run, which.value, out))
    if as_json:
        options.print_json(answer)
    else:
        print(f"{answer['file']}: {answer['bytes']} bytes, {answer['digest']}")


async def _stop(to: Connection, run_id: str, reason: str) -> dict[str, Any]:
    async with to.client(options.READ_PATIENCE_S) as client:
        return (await client.stop_run(run_id, reason)).model_dump(mode="json")


async def _shutdown(to: Connection) -> None:
    async with to.client(options.READ_PATIENCE_S) as client:
        await client.shutdown()


async def _model_get(to: Connection, run_id: str, which: str, out: Path) -> dict[str, Any]:
    from services.rest.transfer import digest_of

    from .. import files

    files.check_writable(out)
    async with to.client(options.READ_PATIENCE_S) as client:
        document = await client.run_model(run_id, which)
    files.write(out, document)
    return {"file": str(out), "bytes": len(document), "digest": await digest_of([document])}
