"""The table of a run's rounds as cells of text: the live view draws them in colour, the report in plain columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services import messages as m
from services.config import RunConfig

from . import words


def rounds_cells(
    config: RunConfig, rounds: Sequence[m.Round], central: Mapping[int, m.Metrics]
) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each round; `central` holds the driver's own scores by round."""
    train = _names(r.train_metrics.combined for r in rounds)
    scored = _names(r.evaluation_metrics.combined for r in rounds)
    own = _names(central.values())
    head = ["round", "learners", *(f"train {n}" for n in train), *scored, *(f"central {n}" for n in own), "time"]
    rows = [
        [
            words.round_title(config, r.round),
            words.took_part(r),
            *_values(r.train_metrics.combined, train),
            *_values(r.evaluation_metrics.combined, scored),
            *_values(central.get(r.round, {}), own),
            words.duration(words.seconds_of(r)),
        ]
        for r in rounds
    ]
    return head, rows


def _names(metrics: Iterable[m.Metrics]) -> list[str]:
    return list(dict.fromkeys(name for given in metrics for name in given))[: words.SHOWN_METRICS]


def _values(metrics: m.Metrics, names: Sequence[str]) -> list[str]:
    return [words.number(metrics.get(name)) for name in names]
