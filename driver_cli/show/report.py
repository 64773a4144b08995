"""A run's results as text: a table of its rounds and the curve of a score, in characters that any terminal shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from services import messages as m

from . import words
from .tables import columns, remarks, rounds_cells

BLOCKS = " ▁▂▃▄▅▆▇█"
ROWS = 6  # height of a curve, in lines
SHOWN = 20  # rounds in the table at most; results.json has them all
COLUMNS = 60  # its width at most, in characters
ALIKE = 1e-9  # values that differ by less than this share of the largest are drawn as one
TINY, LARGE, MOST = 1e-300, 1e300, 1.7976931348623157e308  # beyond the first two, round numbers may leave the floats


def report(results: m.Results, central: Mapping[int, m.Metrics] | None = None) -> str:
    """The table, the curve, and how the run ended."""
    parts = [table(results, central or {}), *remarks(results.run.config, results.rounds[-SHOWN:])]
    if (drawn := metric_curve(results)) is not None:
        parts.append(drawn)
    parts.append(words.ending(results.run))
    return "\n\n".join(part for part in parts if part)


def table(results: m.Results, central: Mapping[int, m.Metrics]) -> str:
    """One line a round, in columns; of many rounds the newest."""
    head, rows = rounds_cells(results.run.config, results.rounds[-SHOWN:], central)
    before = len(results.rounds) - len(rows)
    title = [f"({words.plural(before, 'round')} before these)"] if before else []
    return "\n".join([*title, columns([head, *rows])]) if rows else ""


def metric_curve(results: m.Results) -> str | None:
    """The curve of the metric that the run was after, else of the accuracy, else of the first that was scored."""
    by_round = [r.evaluation_metrics.combined for r in results.rounds]
    known = list(dict.fromkeys(name for metrics in by_round for name in metrics))
    wanted = [name for name in (results.run.config.termination.evaluation_metric, "accuracy") if name in known]
    name = next(iter([*wanted, *known]), None)
    points = [
        (r.round, value) for r in results.rounds if (value := r.evaluation_metrics.combined.get(name or "")) is not None
    ]
    return None if name is None or len(points) < 2 else curve(points, name)


def curve(points: Sequence[tuple[int, float]], name: str) -> str:
    """Values over rounds as columns of blocks; many rounds are thinned, the last always stays."""
    shown = _thinned(points)
    values = [value for _, value in shown]
    low, high = _bounds(values)
    wide = max(1, min(6, COLUMNS // len(shown)))
    span = high / 2 - low / 2  # halves, since the span of the largest floats is none
    levels = [max(1, round((value / 2 - low / 2) / span * ROWS * 8)) for value in values]  # eighths of a line
    lines = []
    for row in reversed(range(ROWS)):
        label = {ROWS - 1: words.number(high), 0: words.number(low)}.get(row, "")
        cells = "".join(BLOCKS[max(0, min(8, level - row * 8))] * wide for level in levels)
        lines.append(f"{label:>8} ┤{cells}")
    lines.append(f"{'':8} └{'─' * (wide * len(shown))} round {shown[0][0]} to {shown[-1][0]}")
    return "\n".join([f"{name}: {words.number(values[0])} to {words.number(values[-1])}", *lines])


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """The curve's lower and upper edge: round numbers around the values."""
    low, high = min(values), max(values)
    most = max(abs(low), abs(high))
    if most > LARGE or high - low <= max(most * ALIKE, TINY):  # no round numbers are near, or no difference shows
        margin = max(0.5, most * 0.01)
        return max(low - margin, -MOST), min(high + margin, MOST)
    step: float = 10.0 ** math.floor(math.log10(high - low))
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    step = -(-len(points) // COLUMNS)
    return points[::-1][::step][::-1]
