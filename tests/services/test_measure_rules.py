"""scripts/measure-rules: an aggregation on disk holds a few blocks in memory, not a model and not the updates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure-rules"
RULES = ["FedAvg", "FedNova", "QFedAvg", "Median", "TrimmedMean", "Krum", "GeometricMedian", "Bulyan"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads RssAnon, which Linux alone tells")
def test_memory_grows_neither_with_the_model_nor_with_the_learners(tmp_path: Path) -> None:
    """Eight updates of 40 MB: every rule works in less than 30 MB beside what the process held before."""
    command = [sys.executable, str(SCRIPT), "--updates", "8", "--megabytes", "40", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["rule"] for row in rows] == RULES
    for row in rows:
        assert 0 < row["anonymous_mb_peak"] - row["anonymous_mb_before"] < 30, row
        assert 0 < row["cpu_s"] < 100
        assert row["model"].startswith("sha256-")
    assert list(tmp_path.iterdir()) == []
