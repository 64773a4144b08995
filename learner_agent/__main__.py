"""`metis-learner`: run a learner that is named as `module:factory`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from services import ServerParams
from services.errors import FederationError
from services.process import end_children, end_soon, freeze, plain, secret

from .agent import LearnerAtWork, LearnerFailed, LearnerProcess, Work, make_learner
from .membership import TRACEBACK, Membership, take_part

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
    state_dir: Annotated[
        Path, Flag(help="Folder of its token and of the tensors that it keeps.", envvar="METIS_STATE_DIR")
    ] = Path(".metis"),
    process: Annotated[
        bool, Flag("--process", help="Train in a process of its own, not in a thread beside the connection.")
    ] = False,
    label: Annotated[list[str] | None, Flag(help="key=value, for selection and display; may be repeated.")] = None,
    root_certificate: Annotated[
        str | None, Flag(help="PEM file: verify the controller against it.", envvar="METIS_ROOT_CERTIFICATE")
    ] = None,
    listen: Annotated[
        str | None, Flag(help="HOST:PORT to take webhooks on, instead of long polls.", envvar="METIS_LISTEN")
    ] = None,
    callback_url: Annotated[
        str | None,
        Flag(help="Where the controller reaches --listen, if not by its HOST:PORT.", envvar="METIS_CALLBACK_URL"),
    ] = None,
    server_certificate: Annotated[
        str | None, Flag(help="PEM file: take webhooks by TLS.", envvar="METIS_SERVER_CERTIFICATE")
    ] = None,
    private_key: Annotated[str | None, Flag(help="PEM file of its key.", envvar="METIS_PRIVATE_KEY")] = None,
    require_tls: Annotated[
        bool,
        Flag("--require-tls", help="Send no token to another machine but by https.", envvar="METIS_REQUIRE_TLS"),
    ] = False,
    report: Annotated[
        str,
        Flag(help="What the controller is told of a task that failed: traceback, or message.", envvar="METIS_REPORT"),
    ] = TRACEBACK,
) -> None:
    """Take part in a federation. It polls over outbound HTTP, waits for a controller that is not there yet, and leaves
    on SIGINT or SIGTERM. With --listen the controller tells it by a webhook when there is something to poll for.

    The enrolment token is read from METIS_ENROLL_TOKEN, or from the file that METIS_ENROLL_TOKEN_FILE names.
    """
    try:
        where = server_params(listen, root_certificate, server_certificate, private_key) if listen else None
        membership = Membership(
            controller=controller,
            name=name,
            token=secret("METIS_ENROLL_TOKEN"),
            root_certificate=root_certificate,
            state_dir=state_dir,
            labels=dict(map(key_and_value, label or [])),
            listen=where,
            callback_url=callback_url,
            require_tls=require_tls,
            report=report,
        )
    except (ValueError, OSError) as error:
        refuse(f"{error}", 2)
    with contextlib.ExitStack() as stack:
        work: Work
        try:
            if process:
                work = stack.enter_context(contextlib.closing(LearnerProcess(learner, membership.local_file)))
            else:
                work = LearnerAtWork(make_learner(learner), membership.local_file)
        except (ImportError, AttributeError, TypeError, ValueError, LearnerFailed, ChildProcessError) as error:
            refuse(f"--learner {learner}: {error}", 2)
        freeze()
        try:
            take_part(work, membership)
        except (FederationError, OSError) as error:
            end_soon(1)
            refuse(f"{error}", 1)
    end_children()
    end_soon(0)


def key_and_value(pair: str) -> tuple[str, str]:
    """A `--label`. Raises ValueError."""
    key, equals, value = pair.partition("=")
    if not key or not equals:
        raise ValueError(f"--label {pair}: write key=value")
    return key, value


def refuse(why: str, status: int) -> NoReturn:
    """Say in a line why this ends, and end."""
    typer.echo(f"metis-learner: {plain(why)}", err=True)
    sys.exit(status)


def server_params(
    listen: str, root_certificate: str | None, server_certificate: str | None, private_key: str | None
) -> ServerParams:
    """Where `--listen HOST:PORT` is; an IPv6 host stands in brackets. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"--listen {listen}: write HOST:PORT, for example 127.0.0.1:9000; port 0 takes a free one")
    tls = (root_certificate, server_certificate, private_key) if server_certificate or private_key else ()
    if not all(tls):
        raise ValueError("TLS for --listen needs --root-certificate, --server-certificate and --private-key")
    return ServerParams(host.removeprefix("[").removesuffix("]"), int(port), *tls)


def main() -> None:
    """Entry point of the script."""
    cli()


if __name__ == "__main__":
    main()
