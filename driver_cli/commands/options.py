"""Options that several commands share.

typer reads a command's options from the function's signature and has no way to declare some of them once for several
commands. So they are declared in a dataclass, whose fields are annotated as parameters would be: `grouped` puts them
into the signature of each command that takes it, and gives the command the dataclass made of what was typed.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from ..session import Connection

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output")]
RunId = Annotated[str, typer.Option("--run", metavar="ID", help="A run's id, `latest` or `current`")]

READ_PATIENCE_S = 3.0  # how long a short command tries to reach the controller


@dataclass(frozen=True)
class ControllerOptions:
    """Where the controller is, and the token that it may ask for."""

    panel: ClassVar[str] = "Where the controller is"

    controller: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="METIS_CONTROLLER_URL",
            help="The controller's address [default: http://localhost:8080]",
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(
            help="The operator's token, else that of METIS_TOKEN or METIS_OPERATOR_TOKEN (others on this machine see an"
            " option: prefer the file)"
        ),
    ] = None
    token_file: Annotated[
        Path | None, typer.Option(help="A file that holds the token, else that of METIS_TOKEN_FILE")
    ] = None
    root_certificate: Annotated[
        Path | None,
        typer.Option(envvar="METIS_ROOT_CERTIFICATE", help="PEM file that the controller is verified against"),
    ] = None
    require_tls: Annotated[
        bool,
        typer.Option("--require-tls", envvar="METIS_REQUIRE_TLS", help="Send no token to another machine but by https"),
    ] = False

    def connection(self) -> Connection:
        """The connection that they name; raises InvalidConfig."""
        from ..session import connection_to, token_of_file

        token = self.token
        if token is None and self.token_file is not None:
            token = token_of_file(self.token_file)
        root_certificate = str(self.root_certificate) if self.root_certificate else None
        return connection_to(self.controller, token, root_certificate, self.require_tls)


def grouped(command: Callable[..., T]) -> Callable[..., T]:
    """`command` as typer shall read it: the options of a dataclass in place of each parameter that is one.

    The dataclass names the heading that its options have in the help (`panel`); each field has a default.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, given in inspect.signature(command).parameters.items():
        shown = _options(groups[name]) if name in groups else [given.replace(annotation=hints[name])]
        parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown]

    @functools.wraps(command)
    def expanded(**typed: Any) -> T:
        for name, group in groups.items():
            typed[name] = group(**{one.name: typed.pop(one.name) for one in fields(group)})
        return command(**typed)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what `inspect` looks for
    return expanded


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """What `--json` prints: one JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False)
    print(flush=True)


def _options(group: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass of options as parameters, under its heading."""
    hints = get_type_hints(group, include_extras=True)
    for one in fields(group):
        (option,) = hints[one.name].__metadata__
        option.rich_help_panel = group.panel
    return [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in fields(group)
    ]
