"""What version 0.1 had elsewhere: its imports work, and say where they lead to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


@pytest.mark.parametrize(("module", "name"), [("proximal", "Proximal"), ("scaffold", "Scaffold")])
def test_an_import_of_version_0_1_works_with_a_warning(module: str, name: str) -> None:
    """The same class, and a warning that names the line of the importing file."""
    program = f"from learner_agent.{module} import {name} as old\nfrom learner_agent import pytorch\n"
    program += f"assert old is pytorch.{name}"
    run = [sys.executable, "-c", program]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[3])
    assert f"<string>:1: DeprecationWarning: import {name} from learner_agent.pytorch" in ended.stderr
