"""When a run ends: the one place where the termination signals are decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .config import TerminationSignals, nearest
from .errors import InvalidConfig

UNREPORTED = 3  # evaluations without the watched metric that end a run
Score = tuple[int, float | None]  # round and watched metric of its model


@dataclass(frozen=True)
class Ending:
    """A signal that ends the run, and why in words."""

    signal: str
    reason: str


def check(signals: TerminationSignals, evaluates: bool) -> None:
    """Raise InvalidConfig for signals that cannot end a run."""
    metric, score = signals.evaluation_metric, signals.evaluation_metric_cutoff_score
    if metric is not None and score is None and signals.patience_rounds is None:
        raise InvalidConfig(
            "termination.evaluation_metric needs evaluation_metric_cutoff_score (or patience_rounds)", metric=metric
        )
    if metric is None and (score is not None or signals.patience_rounds is not None):
        raise InvalidConfig("termination: a cutoff score and patience_rounds need evaluation_metric, the metric's name")
    if metric is not None and not evaluates:
        raise InvalidConfig(f"termination watches {metric!r}, but evaluation.every = 0 turns evaluation off")
    if signals.federation_rounds is None and signals.execution_cutoff_time_mins is None and metric is None:
        raise InvalidConfig(
            "termination has no signal, so the run would never end: give federation_rounds,"
            " execution_cutoff_time_mins or evaluation_metric with evaluation_metric_cutoff_score"
        )


def cutoff_s(signals: TerminationSignals) -> float:
    """Seconds that a run may take; infinity without that signal."""
    minutes = signals.execution_cutoff_time_mins
    return math.inf if minutes is None else minutes * 60.0


def out_of_time(signals: TerminationSignals, started_at: float, now: float) -> Ending | None:
    """The end by `execution_cutoff_time_mins`, which does not wait for a round to close. Times are seconds."""
    if now < started_at + cutoff_s(signals):  # the very sum that is the run's deadline, so that the two agree
        return None
    return Ending("execution_cutoff_time_mins", f"{signals.execution_cutoff_time_mins:g} minutes are over")


def after_round(signals: TerminationSignals, rounds: int, scores: Sequence[Score]) -> Ending | None:
    """The end after `rounds` aggregations, given the round and watched metric of each evaluated model, oldest first.

    A score of None or NaN never matches and never counts as an improvement.
    """
    if signals.federation_rounds is not None and rounds >= signals.federation_rounds:
        return Ending("federation_rounds", f"{rounds} rounds are done")
    latest = _number(scores[-1][1]) if scores else None
    cutoff = signals.evaluation_metric_cutoff_score
    if cutoff is not None and latest is not None and not is_better(cutoff, latest, signals.evaluation_metric_mode):
        sign = "≥" if signals.evaluation_metric_mode == "max" else "≤"
        return Ending("evaluation_metric", f"{signals.evaluation_metric} is {latest:.4g} {sign} {cutoff:g}")
    patience = signals.patience_rounds
    if patience is not None and _stale(scores, signals.evaluation_metric_mode) >= patience:
        return Ending("patience_rounds", f"{signals.evaluation_metric} has not improved for {patience} rounds")
    return None


@dataclass(frozen=True)
class Unreported:
    """The metric that a run watches, which no learner reports."""

    reason: str
    final: bool  # enough models were evaluated to end the run


def unreported(
    signals: TerminationSignals, scores: Sequence[Score], reported: Callable[[], Collection[str]]
) -> Unreported | None:
    """What to say, and do, of a metric that is not among the names `reported` of so many evaluated models.

    The run would never end by it: that is told at once, and is its end after `patience_rounds`, else 3 evaluations.
    """
    metric = signals.evaluation_metric
    if metric is None or not scores or any(score is not None for _, score in scores) or metric in (names := reported()):
        return None
    last = UNREPORTED if signals.patience_rounds is None else signals.patience_rounds
    reason = f"no learner reports {metric!r}{nearest(metric, names) if names else '; they report nothing'}"
    return Unreported(reason, len(scores) >= last)


def is_better(score: float, than: float, mode: str) -> bool:
    """Whether `score` is strictly better."""
    return score > than if mode == "max" else score < than


def _stale(scores: Sequence[Score], mode: str) -> int:
    """Rounds since the best score, or since the start when there is none."""
    best, best_round = None, 0
    for number, reported in scores:
        score = _number(reported)
        if score is not None and (best is None or is_better(score, best, mode)):
            best, best_round = score, number
    return scores[-1][0] - best_round if scores else 0


def _number(score: float | None) -> float | None:
    return None if score is None or math.isnan(score) else score
