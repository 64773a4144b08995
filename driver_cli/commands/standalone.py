"""`metis demo`, `bench`, `simulate`, `rules`, `verify`: the commands that need no controller but their own, or none."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from services.errors import InvalidConfig

from .. import exits
from . import options
from .options import Json

WIDTH = 160  # of the table of `verify` where there is no terminal


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
    from ..local.demo import Demo
    from ..show import display_for

    results = exits.run(Demo(learners, rounds, port, keep, out).run(display_for(sys.stdout)))
    raise typer.Exit(exits.status_of_results(results))


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

    given = sweep.SweepOptions(params, learners, rounds, model_store, slots, floor, durability, idle, idle_seconds, out)
    reports = sweep.saved(saved) if saved else [exits.run(sweep.measure(given, plot))]
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
    raise typer.Exit(exits.status_of_results(results))


def rules(
    name: Annotated[str | None, typer.Argument(help="A rule, an optimizer, ...: with all its parameters")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables for a page")] = False,
    as_json: Json = False,
) -> None:
    """List what a run may be made of: rules, optimizers, transforms, selectors, schedulers, encodings.

    With a name: its parameters, their defaults and ranges, what they mean, and
    the paper that it is from. Each name is given under the key that stands
    beside it, `metis run --set aggregation_rule=TrimmedMean` for instance.
    """
    from services.catalogue import entries
    from services.config import nearest

    from ..show import catalogue

    found = entries()
    if name is not None:
        named = [one for one in found if one.name.casefold() == name.casefold()]
        if not named:
            raise InvalidConfig(f"there is no {name!r}{nearest(name, {one.name for one in found})}", got=name)
        found = named
    if as_json:
        options.print_json([asdict(one) for one in found])
    elif markdown:
        print(catalogue.markdown(found))
    else:
        print(catalogue.listed(found) if name is None else catalogue.described(found))


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
    the newest round of a rule and an optimizer that keep no state. "not made again"
    is said of rounds whose models another version of the arithmetic made.

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
        from ..show import live

        console = live.terminal(sys.stdout, None if sys.stdout.isatty() else WIDTH)
        if found:
            console.print(table(found), "")
        console.print(summary(of, found), markup=False)
    if any(one.verdict.state == "differs" for one in found):
        raise typer.Exit(exits.FAILED)
