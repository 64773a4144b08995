"""The commands that read: plain text for people, pure JSON for programs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

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
