"""`metis bench`: what one call measures and saves, and what it reads back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from driver_cli.bench import plot

from ..processes import metis
from .example_report import report

TIMINGS = {
    "train_dispatch",
    "train_round",
    "aggregation",
    "evaluation_dispatch",
    "evaluation_round",
    "federation_round",
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.mark.slow
def test_measures_rounds_beside_bare_sockets(tmp_path: Path) -> None:
    """The six timings, memory, CPU time, bytes, the floor and the ratio to it; only what was asked for is left."""
    arguments = (
        "--params",
        "1000",
        "--learners",
        "2,3",
        "--rounds",
        "4",
        "--out",
        "b.json",
        "--plot",
        "b.svg",
        "--json",
    )
    done = metis("bench", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"b.json", "b.svg"}
    assert measured == json.loads((tmp_path / "b.json").read_text())
    assert measured["machine"]["cpus"] >= 1
    assert [case["learners"] for case in measured["cases"]] == [2, 3]
    for case in measured["cases"]:
        document = (
            case["bytes_down"] / case["learners"]
        )  # each learner gets the model once: what it evaluated it trains
        assert 4 * case["params"] < document < 3 * 4 * case["params"] + 30_000
        assert case["bytes_up"] > 4 * case["params"] * case["learners"]
        assert set(case["timings_ms"]) >= TIMINGS
        assert all(0 <= spread["min"] <= spread["median"] <= spread["max"] for spread in case["timings_ms"].values())
        assert len(case["rounds_ms"]["federation_round"]) == len(case["floor"]["rounds_s"]) == 4
        whole_s = case["timings_ms"]["federation_round"]["median"] / 1000
        assert case["ratio"] == pytest.approx(whole_s / case["floor"]["round_s"]["median"], abs=0.001)
        assert case["floor"]["bytes"] == 3 * 4 * case["params"] * case["learners"]


@pytest.mark.slow
@linux
def test_cost_of_the_controller_is_told(tmp_path: Path) -> None:
    """Without the floor there is no ratio; CPU time and memory are there, and the text names them."""
    done = metis("bench", "--params", "1000", "--learners", "2", "--rounds", "1", "--no-floor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    assert case["floor"] is None
    assert case["ratio"] is None
    assert 0 < case["cpu_s"]["server"] < 10
    assert 20 < case["memory"]["anonymous_mb"] < case["memory"]["resident_mb"] < 500


def test_saved_reports_are_shown_together(tmp_path: Path) -> None:
    """`--from` measures nothing: tables and picture of several files."""
    report().model_copy(update={"cases": report().cases[:1], "idle": None}).save(tmp_path / "one.json")
    report().model_copy(update={"cases": report().cases[1:]}).save(tmp_path / "two.json")
    files = ("--from", "one.json", "--from", "two.json")
    done = metis("bench", *files, "--markdown", "--plot", "p.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| 1,011,501 |") == 4
    assert (tmp_path / "p.svg").read_text() == plot.svg([report()])
