"""What was measured, saved and read back."""

from __future__ import annotations

import json
from pathlib import Path

from driver_cli.bench.measurements import BenchReport

from .example_report import report


def test_saved_report_is_read_back(tmp_path: Path) -> None:
    """With what is derived from it; a part that was being written is not left."""
    report().save(tmp_path / "b.json")
    assert BenchReport.load(tmp_path / "b.json") == report()
    saved = json.loads((tmp_path / "b.json").read_text())
    assert [(one["ratio"], one["cpu_ratio"]) for one in saved["cases"]] == [(3.0, 1.5), (2.5, 1.5)]
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
