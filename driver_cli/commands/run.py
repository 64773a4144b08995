"""`metis run`: start a run and follow it to its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import exits
from . import options
from .options import Controller, Json, RootCertificate, Token, TokenFile

WHAT = "What is run (goes before the file)"
LEFT = "What is left behind"


def run(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FEDERATION.TOML]", help="The run's configuration", show_default=False)
    ] = None,
    learners: Annotated[int | None, typer.Option(min=1, help="Wait for so many learners", rich_help_panel=WHAT)] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="End after so many rounds", rich_help_panel=WHAT)] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="End at a score: 'accuracy>=0.9' or 'loss<=0.2'", rich_help_panel=WHAT),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes", rich_help_panel=WHAT)] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="End after so many evaluations without a better score", rich_help_panel=WHAT),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Such as Synchronous", rich_help_panel=WHAT)] = None,
    rule: Annotated[str | None, typer.Option(help="Aggregation rule, such as FedAvg", rich_help_panel=WHAT)] = None,
    scaling_factor: Annotated[
        str | None,
        typer.Option(help="NumTrainingExamples, NumCompletedBatches or NumParticipants", rich_help_panel=WHAT),
    ] = None,
    participation: Annotated[
        float | None, typer.Option(metavar="RATIO", help="Share of the learners in a round", rich_help_panel=WHAT)
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Any other key, with a TOML value", rich_help_panel=WHAT),
    ] = None,
    initial_model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Start from this model instead of a learner's: a weights document (as --model-out writes it), .npz or"
            " .safetensors",
            rich_help_panel=WHAT,
        ),
    ] = None,
    from_run: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Start from the final model of a run that has ended: its id, or `latest`",
            rich_help_panel=WHAT,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The results", rich_help_panel=LEFT)] = Path("results.json"),
    model_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The final model", rich_help_panel=LEFT)
    ] = None,
    best_out: Annotated[Path | None, typer.Option(metavar="FILE", help="The best model", rich_help_panel=LEFT)] = None,
    shutdown: Annotated[
        bool, typer.Option("--shutdown", help="End the learners and the controller afterwards", rich_help_panel=LEFT)
    ] = False,
    attach: Annotated[
        bool, typer.Option("--attach", help="Take over the run that is active instead of starting one")
    ] = False,
    connect_timeout: Annotated[float, typer.Option(help="Seconds that the controller is waited for")] = 60.0,
    learners_timeout: Annotated[float, typer.Option(help="Seconds that the learners are waited for")] = 600.0,
    controller: Controller = None,
    token: Token = None,
    token_file: TokenFile = None,
    root_certificate: RootCertificate = None,
    as_json: Json = False,
) -> None:
    """Start a run, show it, and leave results.json.

    A run with --from-run or --initial-model is a new one: it counts its rounds, and the state of its rule and its
    optimizer, from the beginning.

    Ctrl-C stops the run and leaves the results so far. Exit status: 0 completed, or stopped by an operator; 1 the run
    failed; 2 wrong usage or a refused configuration; 3 the controller cannot be reached; 130 interrupted.
    """
    from ..session import DriverSession, run_config

    given = dict(
        learners=learners,
        rounds=rounds,
        until=until,
        minutes=minutes,
        patience=patience,
        scheduler=scheduler,
        rule=rule,
        scaling_factor=scaling_factor,
        participation=participation,
    )
    session = DriverSession(
        options.connect(controller, token, token_file, root_certificate),
        config=run_config.of_command_line(file, given, assignments or []),
        out=out,
        model_out=model_out,
        best_out=best_out,
        shutdown=shutdown,
        initial_weights=initial_model,
        from_run=from_run,
        controller_timeout_s=connect_timeout,
        learners_timeout_s=learners_timeout,
    )
    results = exits.run(_drive(session, attach, as_json))
    if as_json:
        options.print_json(results)
    raise typer.Exit(exits.FAILED if results["run"]["state"] == "failed" else exits.DONE)


async def _drive(session: Any, attach: bool, as_json: bool) -> dict[str, Any]:
    from ..show import display_for

    results: dict[str, Any] = await session.drive(display_for(sys.stderr if as_json else sys.stdout), attach)
    return results
