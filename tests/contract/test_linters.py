"""The OpenAPI document before the judges that others use: their recommended sets, whole, warnings included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.conftest import Run

pytestmark = pytest.mark.internet


def test_redocly_recommends_nothing_else(node: Run, document: Path) -> None:
    """No error and no warning."""
    flags = ("--extends=recommended", "--max-problems=200", "--format=json")
    said = node("redocly", "lint", *flags, document.name, cwd=document.parent)
    found, _ = json.JSONDecoder().raw_decode(said, said.index("{\n"))
    assert found["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, said


def test_spectral_recommends_nothing_else(node: Run, document: Path) -> None:
    """Neither does the other one, down to its hints."""
    (document.parent / "rules.yaml").write_text('extends: ["spectral:oas"]\n')
    node("spectral", "lint", "--fail-severity=hint", "--ruleset=rules.yaml", document.name, cwd=document.parent)
