"""`metis demo`, `metis bench` and `metis simulate`: federations on this machine alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import exits
from . import options
from .options import Json


def demo(
    learners: Annotated[int, typer.Option(min=1, max=64)] = 3,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the controller; 0 takes a free one")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the federation up, with its page, until Ctrl-C")] = False,
    out: Annotated[Path, typer.Option(help="The results")] = Path("results.json"),
) -> None:
    """Run a controller, three learners and a driver on this machine, on handwritten digits that come with metis.

    Everything listens on 127.0.0.1 and ends with the sweep.
    """
    from ..local.demo import Demo
    from ..show import display_for

    results = exits.run(Demo(learners, rounds, port, keep, out).run(display_for(sys.stdout)))
    raise typer.Exit(exits.FAILED if results["run"]["state"] == "failed" else exits.DONE)


def bench(
    params: Annotated[str, typer.Option(metavar="N[,N]", help="Parameters of the model, float32")] = "100k",
    learners: Annotated[str, typer.Option(metavar="N[,N]", help="How many there are")] = "10",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count; one more warms up")] = 5,
    model_store: Annotated[str, typer.Option(help="InMemory or OnDisk")] = "InMemory",
    slots: Annotated[int | None, typer.Option(min=1, help="Large uploads that the controller reads at once")] = None,
    floor: Annotated[bool, typer.Option(help="Measure bare sockets too, in turns, for the ratio")] = True,
    durability: Annotated[
        bool, typer.Option("--durability", help="Compare model stores, in turns, instead of the floor")
    ] = False,
    idle: Annotated[
        int | None, typer.Option(min=1, max=20_000, help="Measure so many learners that wait, instead of rounds")
    ] = None,
    idle_seconds: Annotated[float, typer.Option(min=1, max=600, help="How long they are watched")] = 60.0,
    saved: Annotated[
        list[Path] | None, typer.Option("--from", metavar="FILE", help="Show what --out saved; measure nothing")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Save what was measured")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw it")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables for a page")] = False,
    as_json: Json = False,
) -> None:
    """Measure rounds of learners that train nothing, in another process than the controller, beside bare sockets.

    The stress test of the MetisFL paper: 100k, 1M and 10M parameters in 100 hidden layers; 10, 25, 50, 100, 200
    learners.
    """
    from ..bench import sweep

    asked = sweep.SweepOptions(params, learners, rounds, model_store, slots, floor, durability, idle, idle_seconds, out)
    reports = sweep.saved(saved) if saved else [exits.run(sweep.measure(asked, plot))]
    if plot:
        sweep.draw(reports, plot)
    print(sweep.shown(reports, as_json, markdown))


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
    from ..local.simulation import Simulation
    from ..show import display_for

    simulation = Simulation(learners, concurrency, rounds, learner, assignments or [], out)
    results = exits.run(simulation.run(display_for(sys.stderr if as_json else sys.stdout)))
    if as_json:
        options.print_json(results)
    raise typer.Exit(exits.FAILED if results["run"]["state"] == "failed" else exits.DONE)
