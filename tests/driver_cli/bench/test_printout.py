"""What was measured as tables, in a terminal and on a page."""

from __future__ import annotations

from driver_cli.bench import plot
from driver_cli.bench import printout as tables
from driver_cli.bench.measurements import BenchReport
from tests.docs.pages import ROOT

from .example_report import report


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


def test_page_shows_what_was_measured() -> None:
    """docs/benchmarks.md has the tables and the picture of the files beside it, as `scripts/benchmarks` writes them."""
    files = sorted((ROOT / "docs" / "benchmarks").glob("*.json"))
    reports = [BenchReport.load(file) for file in files]
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- bench: table -->\n")[2].partition("<!-- bench: end -->")[0]
    assert shown.strip() == tables.markdown(reports)
    assert (ROOT / "docs" / "images" / "benchmarks.svg").read_text() == plot.svg(reports)
