"""The commands that read: plain text for people, pure JSON for programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ..processes import METIS, LocalFederation, clean_environment, metis


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "known"),
    [("status", "learner-0"), ("learners", "learner-1"), ("rounds", "2/2"), ("logs", "round-closed")],
)
def test_text_and_json_of_each_reading_command(ran: LocalFederation, tmp_path: Path, command: str, known: str) -> None:
    """Text tells the main thing; with --json every line of standard output belongs to JSON."""
    text = metis(command, "--controller", ran.url, cwd=tmp_path)
    assert (text.returncode, text.stderr) == (0, "")
    assert known in text.stdout
    as_json = metis(command, "--controller", ran.url, "--json", cwd=tmp_path)
    assert (as_json.returncode, as_json.stderr) == (0, "")
    documents = as_json.stdout.splitlines() if command == "logs" else [as_json.stdout]
    assert all(json.loads(document) for document in documents)


def test_controller_comes_from_the_environment(ran: LocalFederation, tmp_path: Path) -> None:
    """METIS_CONTROLLER_URL stands in for --controller."""
    assert metis("status", cwd=tmp_path, METIS_CONTROLLER_URL=ran.url).returncode == 0


def test_reader_that_hangs_up_is_no_error_worth_a_traceback(ran: LocalFederation, tmp_path: Path) -> None:
    """`metis logs | head -1`."""
    arguments = [*METIS, "logs", "--controller", ran.url]
    with subprocess.Popen(
        arguments, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


HOSTILE = "m\x9b2Jallory\u202e"


@pytest.fixture
def haunted(ran: LocalFederation) -> Iterator[LocalFederation]:
    """The federation, with a learner whose name is a command to a terminal."""
    joined = httpx.post(f"{ran.url}/v1/learners", json={"name": HOSTILE}).json()
    yield ran
    httpx.delete(f"{ran.url}/v1/learners/{joined['id']}", headers={"Authorization": f"Bearer {joined['token']}"})


@pytest.mark.slow
def test_a_name_is_no_command_to_the_terminal(haunted: LocalFederation, tmp_path: Path) -> None:
    """What reads, and what refuses, writes controls out; as JSON they are escaped, and the name is what it was."""
    for command in ("status", "learners", "logs"):
        said = metis(command, "--controller", haunted.url, cwd=tmp_path).stdout
        assert r"m\x9b2Jallory\u202e" in said
        assert not set(said) & {"\x9b", "\u202e"}
    listed = metis("learners", "--controller", haunted.url, "--json", cwd=tmp_path).stdout
    logged = metis("logs", "--controller", haunted.url, "--json", cwd=tmp_path).stdout
    assert listed.isascii()
    assert logged.isascii()
    assert HOSTILE in [one["name"] for one in json.loads(listed)]
    assert HOSTILE in [json.loads(line)["learner"] for line in logged.splitlines()]
