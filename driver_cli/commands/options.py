"""Options that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..connection import Connection

HERE = "Where the controller is"
Controller = Annotated[
    str | None,
    typer.Option(
        "--controller",
        metavar="URL",
        envvar="METIS_CONTROLLER_URL",
        help="The controller's address [default: http://localhost:8080]",
        rich_help_panel=HERE,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="The operator's token, else that of METIS_TOKEN or METIS_OPERATOR_TOKEN (others on this machine see an"
        " option: prefer the file)",
        rich_help_panel=HERE,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="A file that holds the token, else that of METIS_TOKEN_FILE", rich_help_panel=HERE),
]
RootCertificate = Annotated[
    Path | None,
    typer.Option(
        envvar="METIS_ROOT_CERTIFICATE", help="PEM file that the controller is verified against", rich_help_panel=HERE
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output")]
RunId = Annotated[str, typer.Option("--run", metavar="ID", help="A run's id, `latest` or `current`")]

READ_PATIENCE_S = 3.0  # how long a short command tries to reach the controller


def connect(
    controller: str | None, token: str | None, token_file: Path | None, root_certificate: Path | None
) -> Connection:
    """The connection that the options name."""
    from ..connection import connection, token_of_file

    if token is None and token_file is not None:
        token = token_of_file(token_file)
    return connection(controller, token, str(root_certificate) if root_certificate else None)


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False)
    print(flush=True)
