"""`metis demo`, `metis bench` and `metis simulate`: federations on this machine alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import exits, options
from ..options import Json


def demo(
    learners: Annotated[int, typer.Option(min=1, max=64)] = 3,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the controller; 0 takes a free one")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the federation up, with its page, until Ctrl-C")] = False,
    out: Annotated[Path, typer.Option(help="The results")] = Path("results.json"),
) -> None:
    """Run a controller, three learners and a driver on this machine, on handwritten digits that come with metis.

    Everything listens on 127.0.0.1 and ends with the command.
    """
    from ..demo import Demo
    from ..display import display_for

    results = exits.run(Demo(learners, rounds, port, keep, out).run(display_for(sys.stdout)))
    raise typer.Exit(exits.FAILED if results["run"]["state"] == "failed" else exits.DONE)


def bench(
    learners: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    params: Annotated[int, typer.Option(min=1, help="Parameters of the model, float32")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count; one more warms up")] = 10,
    model_store: Annotated[str, typer.Option(help="InMemory or OnDisk")] = "InMemory",
    as_json: Json = False,
) -> None:
    """Measure a round: a controller, and learners in another process that train nothing."""
    from ..bench import Bench

    measured = exits.run(Bench(learners, params, rounds, model_store).run())
    if as_json:
        options.print_json(measured.as_json())
    else:
        print(measured.as_text())


def simulate(
    learners: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    concurrency: Annotated[int, typer.Option(min=1, help="How many train at the same time")] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    learner: Annotated[
        str, typer.Option(metavar="MODULE:FACTORY", help="Called with (index, learners) for each learner")
    ] = "learner_agent.digits:DigitsLearner",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="A key of the run's configuration")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The results")] = None,
    as_json: Json = False,
) -> None:
    """Run a federation of many learners in this one process, for research."""
    from ..display import display_for
    from ..simulate import Simulation

    simulation = Simulation(learners, concurrency, rounds, learner, assignments or [], out)
    results = exits.run(simulation.run(display_for(sys.stderr if as_json else sys.stdout)))
    if as_json:
        options.print_json(results)
    raise typer.Exit(exits.FAILED if results["run"]["state"] == "failed" else exits.DONE)
