"""`metis verify`: rounds recomputed from what a controller kept of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import exits
from . import options
from .options import Json

WIDTH = 160  # of the table where there is no terminal


def verify(
    data_dir: Annotated[
        Path, typer.Option(envvar="METIS_DATA_DIR", metavar="DIR", help="The folder of the controller, or a copy of it")
    ] = Path(".metis"),
    run: Annotated[str, typer.Option("--run", metavar="ID", help="A run's id, or `latest`")] = "latest",
    number: Annotated[
        int | None, typer.Option("--round", min=1, metavar="N", help="Only this one, else all that are kept")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute rounds from the stored updates and compare with what the controller made.

    A controller writes down of each round what its model was made of: digests of
    parent, configuration and model, fingerprint and factor of each update. This
    command reads that, and the models of the store OnDisk, and makes each model
    again. It asks no controller, one may be running on the folder, and changes
    nothing there; what it makes is put into the temporary folder (TMPDIR).

    "recomputed: same" means the same bits. "differs" says what is not what it
    was. "not kept" says what is gone: a controller keeps of each learner as many
    updates as its --lineage-length says, 0 for all. 1, the default, is enough for
    the newest round of a rule and an optimizer that keep no state.

    Exit status: 1 when a round differs, else 0.
    """
    from ..local.verification import summary, table, verified, written

    try:
        of = written(data_dir, run)
        found = list(verified(data_dir, of, number))
    except KeyboardInterrupt as error:
        raise exits.Interrupted("interrupted") from error
    if as_json:
        options.print_json({"run": of.run_id, "rounds": [one.as_json() for one in found]})
    else:
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
        if found:
            console.print(table(found), "")
        console.print(summary(of, found), markup=False)
    if any(one.verdict.state == "differs" for one in found):
        raise typer.Exit(exits.FAILED)
