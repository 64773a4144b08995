"""A picture of what the bench measured, as SVG: seconds of a round and its ratio to the floor, over the learners."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from services.errors import InvalidConfig

from .measured import Case, Report

WIDTH, HEIGHT = 420, 300  # of a panel's drawing area, in pixels
LEFT, TOP, BETWEEN, BELOW = 70, 50, 80, 70
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by everyone
INK, GRID = "#333333", "#dddddd"
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a panel; its points are (learners, value)."""

    points: Sequence[Point]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """From value to pixel; `low` and `high` are positive where the axis is logarithmic."""

    low: float
    high: float
    length: float
    logarithmic: bool = True

    def at(self, value: float) -> float:
        """Pixels from the axis's beginning."""
        scale: Callable[[float], float] = math.log if self.logarithmic else float
        return self.length * (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def ticks(self) -> list[float]:
        """Round values on the axis: 1, 2 and 5 of each power of ten; on a linear one about five steps."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high / self.low < 100 else (1,)
            found = [step * 10.0**power for power in powers for step in steps]
        else:
            rough = (self.high - self.low) / 5
            unit = 10.0 ** math.floor(math.log10(rough))
            step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
            found = [step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]


def check(file: Path) -> Path:
    """`file` if a picture can be written to it; raises InvalidConfig."""
    if file.suffix.lower() != ".svg":
        raise InvalidConfig(f"{file}: the picture is an SVG file; name it {file.with_suffix('.svg')}", file=str(file))
    return file


def svg(reports: Sequence[Report]) -> str:
    """The picture. Each model size has a colour; the floor is dashed."""
    cases = sorted((case for one in reports for case in one.cases), key=lambda case: (case.params, case.learners))
    if not cases:
        raise InvalidConfig("nothing to draw: no round was measured")
    kinds = list(dict.fromkeys((case.params, case.model_store) for case in cases))
    colour = {kind: COLOURS[i % len(COLOURS)] for i, kind in enumerate(kinds)}
    seconds: list[Line] = []
    ratios: list[Line] = []
    for kind in kinds:
        some = [case for case in cases if (case.params, case.model_store) == kind]
        seconds.append(Line([(case.learners, case.round_s) for case in some], colour[kind]))
        seconds.append(Line([(c.learners, c.floor.round_s.median) for c in some if c.floor], colour[kind], dashed=True))
        ratios.append(Line([(case.learners, case.ratio) for case in some if case.ratio], colour[kind]))
    panels = [_panel("Federation round in seconds (dashed: bare sockets)", seconds, 0, True)]
    if any(line.points for line in ratios):
        panels.append(_panel("Ratio to bare sockets", ratios, 1, False))
    wide = LEFT + len(panels) * (WIDTH + BETWEEN) - BETWEEN + 30
    return _document(wide, TOP + HEIGHT + BELOW, [*panels, _legend(cases, colour)])


def _panel(title: str, lines: Sequence[Line], place: int, logarithmic: bool) -> str:
    across, up = _axes([point for line in lines for point in line.points], logarithmic)
    parts = [_text(0, -18, title, weight="bold"), _text(WIDTH / 2, HEIGHT + 38, "learners", anchor="middle")]
    for learners in sorted({x for line in lines for x, _ in line.points}):
        parts.append(_text(across.at(learners), HEIGHT + 18, f"{learners:g}", anchor="middle"))
    for value in up.ticks():
        y = HEIGHT - up.at(value)
        parts.append(f'<line x1="0" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_text(-8, y + 4, f"{value:g}", anchor="end"))
    parts.append(f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="{INK}"/>')
    parts += [_line(line, across, up) for line in lines if line.points]
    moved = LEFT + place * (WIDTH + BETWEEN)
    return f'<g transform="translate({moved},{TOP})">\n' + "\n".join(parts) + "\n</g>"


def _axes(points: Sequence[Point], logarithmic: bool) -> tuple[Axis, Axis]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (min(ys) / 1.5, max(ys) * 1.5) if logarithmic else (0.0, max(ys) * 1.1)
    return Axis(min(xs) / 1.15, max(xs) * 1.15, WIDTH), Axis(low, high, HEIGHT, logarithmic)


def _line(line: Line, across: Axis, up: Axis) -> str:
    placed = [(across.at(x), HEIGHT - up.at(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    drawn = f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dashes}/>'
    return drawn + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>' for x, y in placed)


def _legend(cases: Sequence[Case], colour: dict[tuple[int, str], str]) -> str:
    several = len({case.model_store for case in cases}) > 1
    parts, x, y = [], float(LEFT), TOP + HEIGHT + BELOW - 12
    for (params, store), shade in colour.items():
        name = f"{params:,} parameters" + (f", {store}" if several else "")
        parts.append(f'<rect x="{x:.1f}" y="{y - 9}" width="18" height="4" fill="{shade}"/>')
        parts.append(_text(x + 24, y - 2, name))
        x += 40 + 7 * len(name)
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _document(width: float, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' font-family="sans-serif" font-size="12" fill="{INK}">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"
