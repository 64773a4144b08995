"""`metis watch`, `next-round`, `stop`, `readmit`, `shutdown`, `model get`: an operator's part in what runs already."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.process import plain

from .. import exits
from . import options
from .options import ControllerOptions, Json, RunId, grouped

if TYPE_CHECKING:
    from ..session import Connection

model = typer.Typer(no_args_is_help=True, help="Community models.")


class Which(StrEnum):
    """Which community model of a run."""

    latest = "latest"
    best = "best"


@grouped
def watch(to: ControllerOptions, run: RunId = "latest", as_json: Json = False) -> None:
    """Watch a run to its end. Ctrl-C leaves the run alone. With --json its results are printed at the end."""
    results = exits.run(_watch(to.connection(), run, as_json))
    if as_json:
        options.print_json(results)
    raise typer.Exit(exits.status_of_results(results))


@grouped
def next_round(
    to: ControllerOptions,
    run: RunId = "current",
    wait: Annotated[bool, typer.Option(help="Wait until the round has closed, and show it")] = True,
    as_json: Json = False,
) -> None:
    """Start the next round of a run posted with advance = "manual"."""
    text, answer = exits.run(_next_round(to.connection(), run, wait))
    if as_json:
        options.print_json(answer)
    else:
        print(plain(text))


@grouped
def stop(
    to: ControllerOptions,
    run: RunId = "current",
    reason: Annotated[str, typer.Option(help="Stands in the results")] = "stopped by an operator",
    as_json: Json = False,
) -> None:
    """End a run; the models that it made, and its results, are kept."""
    answer = exits.run(_stop(to.connection(), run, reason))
    if as_json:
        options.print_json(answer)
    else:
        print(plain(f"run {answer['id']} {answer['state']}" + (f": {answer['reason']}" if answer["reason"] else "")))


@grouped
def readmit(
    to: ControllerOptions,
    learner: Annotated[str, typer.Argument(metavar="LEARNER", help="Its name, or its id")],
    as_json: Json = False,
) -> None:
    """Let a learner back that was put aside since its updates were refused; it gets tasks from the next round on."""
    answer = exits.run(_readmit(to.connection(), learner))
    if as_json:
        options.print_json(answer)
    else:
        print(f"{plain(answer['name'])} gets tasks again, from the next round on")


@grouped
def shutdown(to: ControllerOptions) -> None:
    """End the controller; its learners hear of it at their next poll and end too."""
    connection = to.connection()
    exits.run(_shutdown(connection))
    print(f"the controller at {connection.url} and its learners were told to end")


@model.command("get")
@grouped
def model_get(
    to: ControllerOptions,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the weights document goes")],
    which: Annotated[Which, typer.Option(help="The newest, or the best by the run's metric")] = Which.latest,
    run: RunId = "latest",
    as_json: Json = False,
) -> None:
    """Download a community model as a weights document (MessagePack)."""
    answer = exits.run(_model_get(to.connection(), run, which.value, out))
    if as_json:
        options.print_json(answer)
    else:
        print(f"{answer['file']}: {answer['bytes']} bytes, {answer['digest']}")


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


async def _stop(to: Connection, run_id: str, reason: str) -> dict[str, Any]:
    async with to.client(options.READ_PATIENCE_S) as client:
        return (await client.stop_run(run_id, reason)).model_dump(mode="json")


async def _readmit(to: Connection, named: str) -> dict[str, Any]:
    from services.errors import UnknownLearner

    async with to.client(options.READ_PATIENCE_S) as client:
        learners = await client.learners()
        found = {**{one.name: one.id for one in learners}, **{one.id: one.id for one in learners}}
        if named not in found:
            raise UnknownLearner(f"there is no learner {named!r}; `metis learners` lists them", id=named)
        back = await client.readmit(found[named])
        return back.model_dump(mode="json", exclude={"token", "webhook_secret"})


async def _shutdown(to: Connection) -> None:
    async with to.client(options.READ_PATIENCE_S) as client:
        await client.shutdown()


async def _model_get(to: Connection, run_id: str, which: str, out: Path) -> dict[str, Any]:
    from services.rest import digest_of

    from .. import files

    files.check_writable(out)
    async with to.client(options.READ_PATIENCE_S) as client:
        document = await client.run_model(run_id, which)
    files.write(out, document)
    return {"file": str(out), "bytes": len(document), "digest": await digest_of([document])}
