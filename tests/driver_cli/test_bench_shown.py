"""`metis bench`: what it measured, saved, read back, as tables and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from driver_cli.bench import plot
from driver_cli.bench import printout as tables
from driver_cli.bench.machine import Machine
from driver_cli.bench.measurements import BenchReport, Case, Cpu, Floor, Idle, Memory, Spread
from services.errors import InvalidConfig
from tests.docs.pages import ROOT

from .conftest import metis

TIMINGS = (
    "train_dispatch",
    "train_round",
    "aggregation",
    "evaluation_dispatch",
    "evaluation_round",
    "federation_round",
)
SVG = "{http://www.w3.org/2000/svg}"


def machine() -> Machine:
    """One that nobody has."""
    return Machine(
        at="2026-01-01T00:00:00+00:00",
        cpus=2,
        model="Abacus",
        system="Linux",
        memory_gb=8.0,
        python="3.11.0",
        versions={"numpy": "2.0"},
        load_before=[0.5, 0.4, 0.3],
        load_after=[1.5, 0.5, 0.3],
    )


def case(learners: int, round_ms: float, floor_ms: float) -> Case:
    """A case whose timings are all the same."""
    spread = Spread.of([round_ms, round_ms, 2 * round_ms])
    return Case(
        size="1M",
        params=1_011_501,
        learners=learners,
        model_store="InMemory",
        slots=None,
        rounds=3,
        timings_ms={name: spread for name in TIMINGS},
        rounds_ms={name: [round_ms, round_ms, 2 * round_ms] for name in TIMINGS},
        cpu_s=Cpu(server=0.3, learners=None),
        memory=Memory(anonymous_mb=80.4, shared_mb=None, resident_mb=120.0),
        bytes_down=40_500_000,
        bytes_up=40_600_000,
        floor=Floor(
            round_s=Spread.of([floor_ms / 1000]),
            rounds_s=[floor_ms / 1000],
            cpu_s=Cpu(server=0.2, learners=0.1),
            bytes=121_000_000,
        ),
        load=(0.5, 1.0),
    )


IDLE = Idle(
    polls=5000,
    wait_s=60.0,
    enrol_s=10.0,
    enrol_cpu_s=4.0,
    added_mb=61.0,
    added_kib_per_poll=11.9,
    watched_s=60.0,
    ended_polls=5000,
    cpu_percent=0.9,
    cpu_percent_quiet=0.12,
    woken=1000,
    runs=5,
    last_task_ms=Spread.of([80.0, 90.0, 130.0]),
    last_task_after_post_ms=Spread.of([100.0, 110.0, 150.0]),
    load=(0.1, 0.2),
)


def report() -> BenchReport:
    """500 ms to 200 of the floor are 2.5; 0.3 CPU seconds to 0.2 are 1.5."""
    return BenchReport(machine=machine(), cases=[case(25, 1200.0, 400.0), case(10, 500.0, 200.0)], idle=IDLE)


def test_saved_report_is_read_back(tmp_path: Path) -> None:
    """With what is derived from it; a part that was being written is not left."""
    report().save(tmp_path / "b.json")
    assert BenchReport.load(tmp_path / "b.json") == report()
    saved = json.loads((tmp_path / "b.json").read_text())
    assert [(one["ratio"], one["cpu_ratio"]) for one in saved["cases"]] == [(3.0, 1.5), (2.5, 1.5)]
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_tables_for_a_page() -> None:
    """A row a case, fewer learners first; what is not known is a dash; the machine and its load stand before."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.markdown([report()]).splitlines()]
    known = {(row[0], row[1]): row for row in rows if row[0] == "1,011,501" and row[-1] == "500 to 1000"}
    assert known[("1,011,501", "10")][2:] == [*["500"] * 6, "200", "2.50", "500 to 1000"]
    assert [
        "1,011,501",
        "10",
        "0.300",
        "0.200",
        "1.50",
        "-",
        "0.100",
        "80",
        "-",
        "120",
        "40.5",
        "40.6",
        "0.5 to 1.0",
    ] in rows
    assert [row[1] for row in rows if row[0] == "1,011,501"] == ["10", "25", "10", "25"]
    assert ["share of a core", "0.90 %"] in rows
    assert ["last of 1,000 has its task after", "90 ms (median of 5 runs, 80 to 130)"] in rows
    text = tables.text([report()])
    assert "2 cores (Abacus), 8 GB" in text
    assert "load averages 0.5 0.4 0.3 before, 1.5 0.5 0.3 after" in text


def test_saved_reports_are_shown_together(tmp_path: Path) -> None:
    """`--from` measures nothing: tables and picture of several files."""
    report().model_copy(update={"cases": report().cases[:1], "idle": None}).save(tmp_path / "one.json")
    report().model_copy(update={"cases": report().cases[1:]}).save(tmp_path / "two.json")
    files = ("--from", "one.json", "--from", "two.json")
    done = metis("bench", *files, "--markdown", "--plot", "p.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| 1,011,501 |") == 4
    assert (tmp_path / "p.svg").read_text() == plot.svg([report()])


def test_picture_has_a_line_for_each_size_and_its_floor() -> None:
    """Seconds of the federation and of the floor (dashed), and their ratio; 10 is amid 1 and 100."""
    root = ElementTree.fromstring(plot.svg([report()]))
    lines = root.findall(f".//{SVG}polyline")
    assert [line.get("stroke-dasharray") is not None for line in lines] == [False, True, False]
    said = [text.text for text in root.iter(f"{SVG}text")]
    assert "1,011,501 parameters" in said
    assert {"10", "25"} <= set(said)
    axis = plot.Axis(1.0, 100.0, 300)
    assert axis.at(10.0) == pytest.approx(150)
    assert plot.Axis(0.7, 30.0, 300).ticks() == pytest.approx([1, 2, 5, 10, 20])
    assert plot.Axis(0.002, 3.0, 300).ticks() == pytest.approx([0.01, 0.1, 1])


def test_page_shows_what_was_measured() -> None:
    """docs/benchmarks.md has the tables and the picture of the files beside it, as `scripts/benchmarks` writes them."""
    files = sorted((ROOT / "docs" / "benchmarks").glob("*.json"))
    reports = [BenchReport.load(file) for file in files]
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- bench: tables -->\n")[2].partition("<!-- bench: end -->")[0]
    assert shown.strip() == tables.markdown(reports)
    assert (ROOT / "docs" / "images" / "benchmarks.svg").read_text() == plot.svg(reports)


def test_nothing_measured_is_no_picture() -> None:
    """Learners that wait have no rounds to draw."""
    with pytest.raises(InvalidConfig):
        plot.svg([BenchReport(machine=machine(), idle=IDLE)])
