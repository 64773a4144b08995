"""A picture of what the bench measured, as SVG: seconds of a round and its ratio to the floor, over the learners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from services.errors import InvalidConfig

from .measurements import BenchReport, Case

WIDTH, HEIGHT = 420, 300  # of a panel's drawing area, in pixels
LEFT, TOP, BETWEEN, BELOW = 70, 50, 80, 70
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by everyone
DARK = ("#56b4e9", "#ff8c42", "#2bd4a4", "#e8a5cb", "#8fd0ff", "#ffc14d")
DESCRIPTION = "Over the number of learners: the seconds of a federation round, and its ratio to bare sockets."
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a panel; its points are (learners, value)."""

    points: Sequence[Point]
    colour: int  # which of the colours
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """From value to pixel, logarithmic."""

    low: float
    high: float
    length: float

    def at(self, value: float) -> float:
        """Pixels from the axis's beginning."""
        return self.length * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Round values on the axis: 1, 2 and 5 of each power of ten, or the powers alone where there are many."""
        steps = (1, 2, 5) if self.high / self.low < 100 else (1,)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [value for power in powers for step in steps if self.low <= (value := step * 10.0**power) <= self.high]


def check(file: Path) -> Path:
    """`file` if a picture can be written to it; raises InvalidConfig."""
    if file.suffix.lower() != ".svg":
        raise InvalidConfig(f"{file}: the picture is an SVG file; name it {file.with_suffix('.svg')}", file=str(file))
    return file


def svg(reports: Sequence[BenchReport]) -> str:
    """The picture. Each model size has a colour; the floor is dashed."""
    cases = sorted((case for one in reports for case in one.cases), key=lambda case: (case.params, case.learners))
    if not cases:
        raise InvalidConfig("nothing to draw: no round was measured")
    kinds = list(dict.fromkeys((case.params, case.model_store) for case in cases))
    colour = {kind: i % len(LIGHT) for i, kind in enumerate(kinds)}
    seconds: list[Line] = []
    ratios: list[Line] = []
    for kind in kinds:
        some = [case for case in cases if (case.params, case.model_store) == kind]
        seconds.append(Line([(case.learners, case.round_s) for case in some], colour[kind]))
        seconds.append(Line([(c.learners, c.floor.round_s.median) for c in some if c.floor], colour[kind], dashed=True))
        ratios.append(Line([(case.learners, case.ratio) for case in some if case.ratio], colour[kind]))
    panels = [_panel("Federation round in seconds (dashed: bare sockets)", seconds, 0)]
    if any(line.points for line in ratios):
        panels.append(_panel("Ratio to bare sockets", ratios, 1))
    wide = LEFT + len(panels) * (WIDTH + BETWEEN) - BETWEEN + 30
    return _document(wide, TOP + HEIGHT + BELOW, "Benchmark", [*panels, _legend(cases, colour)])


def _panel(title: str, lines: Sequence[Line], place: int) -> str:
    across, up = _axes([point for line in lines for point in line.points])
    parts = [_text(0, -18, title, weight="bold"), _text(WIDTH / 2, HEIGHT + 38, "learners", anchor="middle")]
    for learners in sorted({x for line in lines for x, _ in line.points}):
        parts.append(_text(across.at(learners), HEIGHT + 18, f"{learners:g}", anchor="middle"))
    for value in up.ticks():
        y = HEIGHT - up.at(value)
        parts.append(f'<line x1="0" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(-8, y + 4, f"{value:g}", anchor="end"))
    parts.append(f'<path d="M0 0V{HEIGHT}H{WIDTH}" class="axis"/>')
    parts += [_line(line, across, up) for line in lines if line.points]
    moved = LEFT + place * (WIDTH + BETWEEN)
    return f'<g transform="translate({moved},{TOP})">\n' + "\n".join(parts) + "\n</g>"


def _axes(points: Sequence[Point]) -> tuple[Axis, Axis]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Axis(min(xs) / 1.15, max(xs) * 1.15, WIDTH), Axis(min(ys) / 1.5, max(ys) * 1.5, HEIGHT)


def _line(line: Line, across: Axis, up: Axis) -> str:
    placed = [(across.at(x), HEIGHT - up.at(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    drawn = f'<polyline points="{path}" class="line c{line.colour}"{dashes}/>'
    return drawn + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="c{line.colour}"/>' for x, y in placed)


def _legend(cases: Sequence[Case], colour: dict[tuple[int, str], int]) -> str:
    several = len({case.model_store for case in cases}) > 1
    parts, x, y = [], float(LEFT), TOP + HEIGHT + BELOW - 12
    for (params, store), shade in colour.items():
        name = f"{params:,} parameters" + (f", {store}" if several else "")
        parts.append(f'<rect x="{x:.1f}" y="{y - 9}" width="18" height="4" class="c{shade}"/>')
        parts.append(_text(x + 24, y - 2, name))
        x += 40 + 7 * len(name)
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img"'
        f' aria-labelledby="title desc" font-family="sans-serif" font-size="12">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="desc">{DESCRIPTION}</desc>\n'
        f"<style>\n{_style()}\n</style>"
    )
    return "\n".join([head, '<rect width="100%" height="100%" class="page"/>', *parts, "</svg>"]) + "\n"


def _style() -> str:
    """Colours for a light page and for a dark one."""
    return "\n".join(
        [
            ".line { fill: none; stroke-width: 2 } .axis { fill: none }",
            *_colours(LIGHT, page="#ffffff", ink="#333333", grid="#dddddd"),
            "@media (prefers-color-scheme: dark) {",
            *_colours(DARK, page="#0f141b", ink="#d5dbe3", grid="#2b3440"),
            "}",
        ]
    )


def _colours(colours: Sequence[str], page: str, ink: str, grid: str) -> list[str]:
    fixed = f".page {{ fill: {page} }} text {{ fill: {ink} }} .axis {{ stroke: {ink} }} .grid {{ stroke: {grid} }}"
    return [fixed, *(f".c{i} {{ stroke: {c} }} .c{i}:not(.line) {{ fill: {c} }}" for i, c in enumerate(colours))]
