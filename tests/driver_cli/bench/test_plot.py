"""What was measured as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from driver_cli.bench import plot
from driver_cli.bench.measurements import BenchReport
from services.errors import InvalidConfig

from .example_report import IDLE, machine, report

SVG = "{http://www.w3.org/2000/svg}"


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


def test_nothing_measured_is_no_picture() -> None:
    """Learners that wait have no rounds to draw."""
    with pytest.raises(InvalidConfig):
        plot.svg([BenchReport(machine=machine(), idle=IDLE)])
