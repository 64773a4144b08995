"""From `module:factory` to a learner."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner_agent.agent import make_learner


def test_a_factory_may_be_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a script of the user's."""
    (tmp_path / "my_own_learner.py").write_text("from learner_agent.digits import digits_learner as mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    assert type(make_learner("my_own_learner:mine")).__name__ == "DigitsLearner"
