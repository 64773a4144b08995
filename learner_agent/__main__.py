"""`metis-learner`: run a learner that is named as `module:factory`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.errors import FederationError

from .learner import Learner
from .run import app as run_app

cli = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
Flag = typer.Option


@cli.command()
def learner(
    learner: Annotated[str, Flag(help="module:factory that makes the learner (a class or a function).")],
    controller: Annotated[
        str, Flag(help="URL of the controller.", envvar="METIS_CONTROLLER_URL")
    ] = "http://127.0.0.1:8080",
    name: Annotated[
        str | None,
        Flag(help="Name in the federation; with it a restarted agent is the same learner.", envvar="METIS_NAME"),
    ] = None,
    state_dir: Annotated[Path, Flag(help="Folder of its token.", envvar="METIS_STATE_DIR")] = Path(".metis"),
    label: Annotated[list[str] | None, Flag(help="key=value, for selection and display; may be repeated.")] = None,
    root_certificate: Annotated[
        str | None, Flag(help="PEM file: verify the controller against it.", envvar="METIS_ROOT_CERTIFICATE")
    ] = None,
) -> None:
    """Take part in a federation. It polls over outbound HTTP, waits for a controller that is not there yet, and leaves
    on SIGINT or SIGTERM.

    The enrolment token is read from METIS_ENROLL_TOKEN, or from the file that METIS_ENROLL_TOKEN_FILE names.
    """
    try:
        made = make(learner)
        labels = dict(pair.split("=", 1) for pair in label or [])
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        typer.echo(f"metis-learner: --learner {learner}: {error}", err=True)
        sys.exit(2)
    if root_certificate:
        os.environ["METIS_ROOT_CERTIFICATE"] = root_certificate
    try:
        run_app(made, controller=controller, name=name, state_dir=state_dir, labels=labels)
    except (FederationError, OSError) as error:
        typer.echo(f"metis-learner: {error}", err=True)
        sys.exit(1)


def make(spec: str) -> Learner:
    """The learner of `module:factory`; the working directory is importable. Raises ValueError, ImportError, …"""
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ValueError("write it as module:factory, for example learner_agent.digits:digits_learner")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    made = getattr(importlib.import_module(module_name), attribute)()
    if not all(callable(getattr(made, method, None)) for method in ("get_weights", "set_weights", "train", "evaluate")):
        raise TypeError(f"{type(made).__name__} lacks get_weights, set_weights, train or evaluate")
    return made  # type: ignore[no-any-return]


def main() -> None:
    """Entry point of the script."""
    cli()


if __name__ == "__main__":
    main()
