"""The five terminals of the scikit-learn quickstart, as real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Process, free_port
from tests.examples.terminals import ANY_ORDER, EXAMPLES, Terminals, skip_loudly, trained_together

LEARNER = EXAMPLES / "quickstart-sklearn" / "learner.py"


@pytest.fixture(autouse=True)
def _sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        skip_loudly("the scikit-learn quickstart needs scikit-learn: pip install scikit-learn")


@pytest.mark.slow
@pytest.mark.timeout(300)
@ANY_ORDER
def test_five_rounds_on_the_digits_reach_0_93_in_any_order(
    start: Callable[..., Process], tmp_path: Path, order: tuple[str, ...]
) -> None:
    """The README's commands: `metis-controller`, three learners, `metis run`."""
    port = str(free_port())
    commands: dict[str, tuple[str, ...]] = {
        f"learner-{i}": (str(LEARNER), "-l", str(i), "--port", port) for i in (1, 2, 3)
    }
    commands["controller"] = ("-m", "controller_api", "--port", port)
    run = ("run", "--controller", f"http://localhost:{port}", "--learners", "3", "--rounds", "5", "--shutdown")
    commands["driver"] = ("-m", "driver_cli", *run)
    results = Terminals(start, commands, tmp_path).run(order, 150)
    assert trained_together(results, rounds=5)
    accuracy = results["rounds"][-1]["evaluation_metrics"]["combined"]["accuracy"]
    assert accuracy >= 0.93
