"""`metis-learner` as a command: its flags, and what it says of bad ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from learner_agent.__main__ import cli
from tests.conftest import Process

HERE = Path(__file__).parents[2]
DIGITS = "learner_agent.digits:digits_learner"


def test_help_names_every_flag() -> None:
    """And how to give the token, which is no flag: arguments are seen by every user of a machine."""
    shown = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    for word in ("--controller", "--learner", "--name", "--state-dir", "--process", "--label", "METIS_ENROLL_TOKEN"):
        assert word in shown.output
    assert "--token" not in shown.output


@pytest.mark.parametrize("process", [[], ["--process"]], ids=["thread", "process"])
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("digits", "write it as module:factory, for example learner_agent.digits:digits_learner"),
        (":digits", "write it as module:factory"),
        ("no_such_module:learner", ": "),  # the words of Python's import
        ("learner_agent.digits:nobody", ": "),
        ("builtins:dict", "dict is no learner: it lacks get_weights, set_weights, train, evaluate"),
        ("tests.learner_agent.scripted_learner:broken", "METIS_SHARD must be a whole number"),
    ],
)
def test_a_bad_learner_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, process: list[str], spec: str, says: str
) -> None:
    """Exit status 2; no traceback, nothing left on disk."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(cli, ["--learner", spec, *process])
    assert ended.exit_code == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith(f"metis-learner: --learner {spec}: ")
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--label", "north"], "--label north: write key=value"),
        (["--label", "=north"], "--label =north: write key=value"),
        (["--callback-url", "http://a/b"], "a callback URL needs a place to listen"),
        (["--controller", "http://10.0.0.7:1", "--require-tls"], "http://10.0.0.7:1 would get a token in clear"),
    ],
)
def test_bad_flags_are_told_in_a_line(flags: list[str], says: str) -> None:
    """Exit status 2."""
    ended = CliRunner().invoke(cli, ["--learner", DIGITS, *flags])
    assert ended.exit_code == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_learner_is_needed() -> None:
    """Exit status 2, naming the flag."""
    ended = CliRunner().invoke(cli, [])
    assert ended.exit_code == 2
    assert "--learner" in ended.stderr


@pytest.mark.parametrize(("host", "warnings"), [("192.0.2.1", 1), ("127.0.0.1", 0)])
def test_a_token_in_clear_is_warned_of(start: Callable[..., Process], host: str, warnings: int) -> None:
    """Once, before the first call; not where only this machine listens."""
    process = start("learner", "-m", "learner_agent", "--learner", DIGITS, "--controller", f"http://{host}:9")
    waited = "waiting for the controller" if not warnings else "tokens travel in clear"
    deadline = time.monotonic() + 60
    while waited not in process.tail() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert waited in process.tail()
    assert process.tail().count("tokens travel in clear: give an https address") == warnings
