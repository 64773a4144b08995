"""The `metis` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import exits
from .commands import operator, run, standalone, status

app = typer.Typer(
    name="metis",
    help="Federated learning over plain HTTP: start a run on a controller, follow it, end it.",
    epilog="Exit status: 0 done, 1 the run failed, 2 wrong usage, 3 the controller cannot be reached, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for panel, commands in {
    "Runs": (run.run, operator.watch, operator.next_round, operator.stop),
    "The federation": (status.status, status.learners, status.rounds, status.logs, operator.readmit, operator.shutdown),
    "On this machine": (standalone.demo, standalone.bench, standalone.simulate, standalone.rules, standalone.verify),
}.items():
    for command in commands:
        app.command(command.__name__.replace("_", "-"), rich_help_panel=panel)(command)
app.add_typer(operator.model, name="model", rich_help_panel="Runs")


def _tell_version(wanted: bool) -> None:
    if wanted:
        import services

        print(f"metisfl-rest {services.__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Options that stand before a command."""


def main() -> None:
    """Run the command line; every error leaves in a sentence, with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no block characters shows question marks
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:
        exits.leave(error)
