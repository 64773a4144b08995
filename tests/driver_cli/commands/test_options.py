"""Options that commands share: how they become part of a command, and those that say where the controller is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from driver_cli.commands.options import grouped
from driver_cli.main import app as metis_app

from ..processes import LocalFederation, metis

OPERATOR = "operator-token-of-the-tests"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    """A controller with tokens and no learner."""
    federation = LocalFederation(tmp_path_factory.mktemp("guarded"))
    try:
        federation.start_controller(METIS_OPERATOR_TOKEN=OPERATOR, METIS_ENROLL_TOKEN="enrolment-token-of-the-tests")
        federation.wait_for(0, OPERATOR)
        yield federation
    finally:
        federation.end()


def test_without_a_token_or_with_a_wrong_one_the_command_is_refused(guarded: LocalFederation, tmp_path: Path) -> None:
    """The message says how to give the token, and does not repeat it."""
    for token in ((), ("--token", "wrong-wrong-wrong-wrong")):
        done = metis("status", "--controller", guarded.url, *token, cwd=tmp_path)
        assert done.returncode == 2
        assert "--token-file" in done.stderr
        assert "wrong-wrong" not in done.stderr


@pytest.mark.slow
def test_token_comes_by_option_file_or_environment(guarded: LocalFederation, tmp_path: Path) -> None:
    """Each way is good, a file best: it is not in the list of processes."""
    (tmp_path / "token").write_text(OPERATOR + "\n")
    ways: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("--token", OPERATOR), {}),
        (("--token-file", "token"), {}),
        ((), {"METIS_TOKEN": OPERATOR}),
        ((), {"METIS_TOKEN_FILE": "token"}),
        ((), {"METIS_OPERATOR_TOKEN": OPERATOR}),
        ((), {"METIS_OPERATOR_TOKEN_FILE": "token"}),
    ]
    for arguments, environment in ways:
        done = metis("status", "--controller", guarded.url, *arguments, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr


def test_learners_that_do_not_come_fail_the_run_within_the_bound(guarded: LocalFederation, tmp_path: Path) -> None:
    """The driver says who is missing, and its bound on the wait is the run's."""
    done = metis(
        *("run", "--controller", guarded.url, "--learners", "2", "--rounds", "1", "--learners-timeout", "1"),
        cwd=tmp_path,
        METIS_TOKEN=OPERATOR,
    )
    assert done.returncode == 1
    assert "2 more of 2 learners" in done.stdout
    assert "failed" in done.stdout


# ---- groups of options
@dataclass(frozen=True)
class Journey:
    """Options as commands share them."""

    panel: ClassVar[str] = "Where it goes"

    town: Annotated[str, typer.Option(metavar="NAME", help="The end of it")] = "Delphi"
    stops: Annotated[list[str] | None, typer.Option("--by", help="A stop")] = None


def journeys() -> typer.Typer:
    """Two commands that share the options; one has some of its own, before and after them."""
    app = typer.Typer()

    @app.command()
    @grouped
    def walk(why: Annotated[str, typer.Argument()], to: Journey, days: Annotated[int, typer.Option()] = 1) -> None:
        """Walk there."""
        print(why, to, days)

    @app.command()
    @grouped
    def ride(to: Journey) -> None:
        """Ride there."""
        print(to)

    return app


@pytest.mark.parametrize(
    ("typed", "got"),
    [
        (("ride",), "Journey(town='Delphi', stops=None)"),
        (("ride", "--town", "Argos", "--by", "a", "--by", "b"), "Journey(town='Argos', stops=['a', 'b'])"),
        (("walk", "trade", "--town", "Argos"), "trade Journey(town='Argos', stops=None) 1"),
        (("walk", "--days", "3", "trade", "--by", "a"), "trade Journey(town='Delphi', stops=['a']) 3"),
    ],
)
def test_a_group_reaches_each_command_as_one_value(typed: tuple[str, ...], got: str) -> None:
    """With its defaults, in any order, beside what a command has of its own."""
    done = CliRunner().invoke(journeys(), typed)
    assert (done.exit_code, done.stdout.strip()) == (0, got), done.output


def test_a_group_stands_in_the_help_under_its_heading() -> None:
    """Each option with its words, in every command that takes the group, after the command's own."""
    for command in ("walk", "ride"):
        shown = CliRunner().invoke(journeys(), [command, "--help"]).stdout
        own, heading, shared = shown.partition("Where it goes")
        assert heading
        assert f"{command.title()} there." in own
        assert "--town" in shared
        assert "NAME" in shared
        assert "The end of it [default: Delphi]" in " ".join(shared.split())
        assert "--by" in shared


def test_a_group_is_named_by_no_option_of_its_own() -> None:
    """What the function calls the group is no option, and an option that is in no group is refused."""
    assert CliRunner().invoke(journeys(), ["ride", "--to", "Argos"]).exit_code == 2


def test_every_command_that_asks_a_controller_says_where_in_the_same_options() -> None:
    """All but those that bring their own controller, or need none."""
    group = typer.main.get_command(metis_app)
    commands = {**group.commands, **group.commands["model"].commands}  # type: ignore[attr-defined]
    names = ["controller", "token", "token_file", "root_certificate", "require_tls"]
    ask = {
        name
        for name, one in commands.items()
        if [p.name for p in one.params if getattr(p, "rich_help_panel", None) == "Where the controller is"] == names
    }
    assert set(commands) - ask == {"demo", "bench", "simulate", "rules", "verify", "model"}
