"""The figures of the fault tests: how they are kept, and that the page shows what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.process.failpoints import POINTS
from tests.docs.pages import ROOT
from tests.faults.figures import Figures, load, record, table

MEASURED = ROOT / "docs" / "reliability" / "figures.jsonl"
AT_LEAST = {
    **{f"controller killed at `{point}`": 20 for point in POINTS},
    "controller killed at any moment": 100,
    "upload cut at a random byte": 200,
    "download cut at a random byte": 200,
    "the same upload 50 times at once": 50,
    "disk full at any moment": 20,
    "network that drops packets, both directions": 1,
    "controller stopped for twice the lease": 6,
    "controller's loop blocked for twice the lease": 1,
    "1,000 learners cut off at once": 1000,
    "controller killed, 1,000 learners come back at once": 1000,
    "controller killed in a round, 1,000 learners come back at once": 1000,
}


def test_figures_of_one_fault_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are summed, of the waits the longest stays; faults keep the order in which they came."""
    monkeypatch.setenv("FAULT_FIGURES", str(tmp_path / "figures.jsonl"))
    record("cut", tried=10, survived=9, lost=1, twice=0, longest_wait_s=0.5)
    record("full disk", tried=1, survived=1, lost=0, twice=0, longest_wait_s=2.0)
    record("twins", tried=2, survived=2, lost=0, twice=0)
    record("cut", tried=1000, survived=1000, lost=0, twice=2, longest_wait_s=0.25)
    figures = load(tmp_path / "figures.jsonl")
    assert figures == [
        Figures("cut", 1010, 1009, 1, 2, 0.5),
        Figures("full disk", 1, 1, 0, 0, 2.0),
        Figures("twins", 2, 2, 0, 0),
    ]
    assert table(figures).splitlines() == [
        "| fault | tried | survived | lost | counted twice | longest wait |",
        "|---|---:|---:|---:|---:|---:|",
        "| cut | 1,010 | 1,009 | 1 | 2 | 0.5 s |",
        "| full disk | 1 | 1 | 0 | 0 | 2.0 s |",
        "| twins | 2 | 2 | 0 | 0 |  |",
    ]


def test_nothing_is_kept_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FAULT_FIGURES a test leaves nothing behind."""
    monkeypatch.delenv("FAULT_FIGURES", raising=False)
    monkeypatch.chdir(tmp_path)
    record("cut", tried=1, survived=1, lost=0, twice=0)
    assert list(tmp_path.iterdir()) == []


def test_everything_survived() -> None:
    """Nothing was lost or counted twice, and each fault was tried often enough to say so."""
    found = {one.fault: one for one in load(MEASURED)}
    for one in found.values():
        assert (one.survived, one.lost, one.twice) == (one.tried, 0, 0), one.fault
    for fault, least in AT_LEAST.items():
        assert found[fault].tried >= least, fault


def test_page_shows_what_was_measured() -> None:
    """docs/reliability.md has the table of the figures beside it, as `scripts/faults` writes it."""
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- faults: table -->\n")[2].partition("<!-- faults: end -->")[0]
    assert shown.strip() == table(load(MEASURED))
