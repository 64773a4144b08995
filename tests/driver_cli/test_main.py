"""`metis` itself: help, version, and the exit statuses of what cannot be done."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .processes import METIS, clean_environment, metis


@pytest.mark.slow
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
