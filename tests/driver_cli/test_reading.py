"""The commands that read: plain text for people, pure JSON for programs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import METIS, Federation, clean_environment, metis


@pytest.fixture(scope="module")
def ran(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """The federation after a run of two rounds."""
    folder = tmp_path_factory.mktemp("run")
    done = metis("run", "--controller", federation.url, "--rounds", "2", "--learners", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    return federation


@pytest.mark.parametrize(
    ("command", "known"),
    [("status", "learner-0"), ("learners", "learner-1"), ("rounds", "2/2"), ("logs", "round-closed")],
)
def test_text_and_json_of_each_reading_command(ran: Federation, tmp_path: Path, command: str, known: str) -> None:
    """Text tells the main thing; with --json every line of standard output belongs to JSON."""
    text = metis(command, "--controller", ran.url, cwd=tmp_path)
    assert (text.returncode, text.stderr) == (0, "")
    assert known in text.stdout
    as_json = metis(command, "--controller", ran.url, "--json", cwd=tmp_path)
    assert (as_json.returncode, as_json.stderr) == (0, "")
    documents = as_json.stdout.splitlines() if command == "logs" else [as_json.stdout]
    assert all(json.loads(document) for document in documents)


def test_controller_comes_from_the_environment(ran: Federation, tmp_path: Path) -> None:
    """METIS_CONTROLLER_URL stands in for --controller."""
    assert metis("status", cwd=tmp_path, METIS_CONTROLLER_URL=ran.url).returncode == 0


def test_model_is_downloaded_with_its_digest(ran: Federation, tmp_path: Path) -> None:
    """The newest model of the latest run, as its results name it; what does not exist is an error without a file."""
    done = metis("model", "get", "--controller", ran.url, "--out", "m.msgpack", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    status = json.loads(metis("status", "--controller", ran.url, "--json", cwd=tmp_path).stdout)
    assert answer["digest"] == status["run"]["model"]
    assert (tmp_path / "m.msgpack").stat().st_size == answer["bytes"]
    missing = metis("model", "get", "--controller", ran.url, "--run", "nope", "--out", "x", cwd=tmp_path)
    assert missing.returncode == 1
    assert not (tmp_path / "x").exists()


def test_reader_that_hangs_up_is_no_error_worth_a_traceback(ran: Federation, tmp_path: Path) -> None:
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


def test_stop_without_a_run_says_so(ran: Federation, tmp_path: Path) -> None:
    """There is nothing to stop: 1, and a sentence."""
    done = metis("stop", "--controller", ran.url, cwd=tmp_path)
    assert done.returncode == 1
    assert "no run is active" in done.stderr


def test_controller_that_is_not_there_is_3(tmp_path: Path) -> None:
    """A short command gives up after seconds, with the next step."""
    done = metis("status", "--controller", "http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 3
    assert "metis-controller" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run", "--rounds", "0"),
        ("run", "--rounds", "many"),
        ("run", "missing.toml"),
        ("run", "--until", "accuracy", "--rounds", "1"),
        ("status", "--controller", "ftp://x"),
        ("status", "--token-file", "missing"),
        ("model", "get"),
    ],
)
def test_wrong_usage_is_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Mistakes on the command line are told apart from everything else, and need no controller."""
    done = metis(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_and_version_are_quick_to_say(tmp_path: Path) -> None:
    """Neither numpy, httpx nor any server is imported for a word of help."""
    code = (
        "import sys; sys.argv = ['metis', '--help']\n"
        "from driver_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'httpx', 'fastapi', 'torch'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [METIS[0], "-c", code], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines()[-1] == "[]"
    assert metis("--version", cwd=tmp_path).stdout.startswith("metisfl-rest ")
