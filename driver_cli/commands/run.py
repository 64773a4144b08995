"""`metis run`: start a run and follow it to its end."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from .. import exits
from . import options
from .options import ControllerOptions, Json, grouped

if TYPE_CHECKING:
    from ..session import DriverSession


@dataclass(frozen=True)
class RunOptions:
    """What is run: keys of the run's configuration, and the model that it starts from."""

    panel: ClassVar[str] = "What is run (goes before the file)"

    learners: Annotated[int | None, typer.Option(min=1, help="Wait for so many learners")] = None
    rounds: Annotated[int | None, typer.Option(min=1, help="End after so many rounds")] = None
    until: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="End at a score: 'accuracy>=0.9' or 'loss<=0.2'")
    ] = None
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes")] = None
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many evaluations without a better score")
    ] = None
    scheduler: Annotated[str | None, typer.Option(help="Such as Synchronous")] = None
    rule: Annotated[str | None, typer.Option(help="Aggregation rule, such as FedAvg")] = None
    scaling_factor: Annotated[
        str | None, typer.Option(help="NumTrainingExamples, NumCompletedBatches or NumParticipants")
    ] = None
    participation: Annotated[float | None, typer.Option(metavar="RATIO", help="Share of the learners in a round")] = (
        None
    )
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Any other key, with a TOML value")
    ] = None
    initial_model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Start from this model instead of a learner's: a weights document (as --model-out writes it), .npz or"
            " .safetensors",
        ),
    ] = None
    from_run: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Start from the final model of a run that has ended: its id, or `latest`"),
    ] = None

    def config(self, file: Path | None) -> dict[str, Any]:
        """The configuration in the file with these over it; raises InvalidConfig."""
        from ..session import run_config

        return run_config.of_command_line(file, asdict(self), self.assignments or [])


@dataclass(frozen=True)
class OutputOptions:
    """What a run leaves behind."""

    panel: ClassVar[str] = "What is left behind"

    out: Annotated[Path, typer.Option(help="The results")] = Path("results.json")
    model_out: Annotated[Path | None, typer.Option(metavar="FILE", help="The final model")] = None
    best_out: Annotated[Path | None, typer.Option(metavar="FILE", help="The best model")] = None
    shutdown: Annotated[bool, typer.Option("--shutdown", help="End the learners and the controller afterwards")] = False


@grouped
def run(
    what: RunOptions,
    left: OutputOptions,
    to: ControllerOptions,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FEDERATION.TOML]", help="The run's configuration", show_default=False)
    ] = None,
    attach: Annotated[
        bool, typer.Option("--attach", help="Take over the run that is active instead of starting one")
    ] = False,
    connect_timeout: Annotated[float, typer.Option(help="Seconds that the controller is waited for")] = 60.0,
    learners_timeout: Annotated[float, typer.Option(help="Seconds that the learners are waited for")] = 600.0,
    as_json: Json = False,
) -> None:
    """Start a run, show it, and leave results.json.

    A run with --from-run or --initial-model is a new one: it counts its rounds, and the state of its rule and its
    optimizer, from the beginning.

    Ctrl-C stops the run and leaves the results so far. Exit status: 0 completed, or stopped by an operator; 1 the run
    failed; 2 wrong usage or a refused configuration; 3 the controller cannot be reached; 130 interrupted.
    """
    from ..session import DriverSession

    session = DriverSession(
        to.connection(),
        config=what.config(file),
        out=left.out,
        model_out=left.model_out,
        best_out=left.best_out,
        shutdown=left.shutdown,
        initial_weights=what.initial_model,
        from_run=what.from_run,
        controller_timeout_s=connect_timeout,
        learners_timeout_s=learners_timeout,
    )
    results = exits.run(_drive(session, attach, as_json))
    if as_json:
        options.print_json(results)
    raise typer.Exit(exits.status_of_results(results))


async def _drive(session: DriverSession, attach: bool, as_json: bool) -> dict[str, Any]:
    from ..show import display_for

    return await session.drive(display_for(sys.stderr if as_json else sys.stdout), attach)
