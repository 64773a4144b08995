"""`--until`: one condition, as termination signals."""

from __future__ import annotations

import pytest

from driver_cli.session.run_config import of_condition
from services.errors import InvalidConfig


@pytest.mark.parametrize(
    ("text", "metric", "score", "mode"),
    [
        ("accuracy>=0.9", "accuracy", 0.9, "max"),
        ("loss<=0.2", "loss", 0.2, "min"),
        ("  f1.macro  >=  -1e-3 ", "f1.macro", -0.001, "max"),
        ("loss<=0", "loss", 0.0, "min"),
    ],
)
def test_condition_becomes_signals(text: str, metric: str, score: float, mode: str) -> None:
    """Metric, score and direction are read from the condition; 0 is a score like any other."""
    assert of_condition(text) == {
        "evaluation_metric": metric,
        "evaluation_metric_cutoff_score": score,
        "evaluation_metric_mode": mode,
    }


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy>0.9", "accuracy=0.9", ">=0.9", "a>=b", "a>=nan", "a>=inf"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """What is no condition says how to write one."""
    with pytest.raises(InvalidConfig, match=r"accuracy>=0\.9"):
        of_condition(text)
