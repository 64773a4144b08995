"""Termination: each signal ends a run when it should and not before; signals that cannot end one are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import TerminationSignals
from services.errors import InvalidConfig
from services.termination import after_round, check, cutoff_s, out_of_time

NAN = float("nan")


def scored(*scores: float | None) -> list[tuple[int, float | None]]:
    """The scores of rounds 1, 2, 3, …"""
    return list(enumerate(scores, start=1))


def ends(signals: TerminationSignals, *scores: float | None) -> str | None:
    """The signal that ends a run with these scores after its last round, if any."""
    ending = after_round(signals, len(scores), scored(*scores))
    return ending.signal if ending else None


def metric(mode: str = "max", **more: object) -> TerminationSignals:
    """Signals about the metric `score`."""
    return TerminationSignals(evaluation_metric="score", evaluation_metric_mode=mode, **more)  # type: ignore[arg-type]


def test_n_rounds_are_n_aggregations() -> None:
    """After round 4 of 5 the run goes on; after round 5 it ends, saying so."""
    signals = TerminationSignals(federation_rounds=5)
    assert after_round(signals, 4, []) is None
    ending = after_round(signals, 5, [])
    assert ending is not None
    assert (ending.signal, ending.reason) == ("federation_rounds", "5 rounds are done")


@pytest.mark.parametrize(
    ("mode", "cutoff", "score", "over"),
    [
        ("max", 0.9, 0.9, True),
        ("max", 0.9, 0.91, True),
        ("max", 0.9, 0.8999, False),
        ("min", 0.1, 0.1, True),
        ("min", 0.1, 0.09, True),
        ("min", 0.1, 0.1001, False),
        ("max", 0.0, 0.0, True),
        ("max", 0.0, -0.1, False),
        ("min", 0.0, 0.0, True),
        ("min", 0.0, -0.1, True),
        ("max", -1.0, 0.0, True),
        ("max", 0.9, None, False),
        ("min", 0.1, None, False),
        ("max", -1e300, NAN, False),
        ("min", 1e300, NAN, False),
        ("max", 0.9, math.inf, True),
    ],
)
def test_a_score_ends_the_run_from_its_cutoff_on(mode: str, cutoff: float, score: float | None, over: bool) -> None:
    """`max` ends at least at the score, `min` at most; 0 is a score like any other; none and NaN never match."""
    signals = metric(mode, evaluation_metric_cutoff_score=cutoff)
    assert ends(signals, 0.5 if mode == "min" else -2.0, score) == ("evaluation_metric" if over else None)


def test_only_the_newest_score_ends_the_run() -> None:
    """A model that was not scored does not match by the score of the one before."""
    assert ends(metric(evaluation_metric_cutoff_score=0.9), 0.95, None) is None


def test_the_reason_tells_score_and_cutoff() -> None:
    """The results say which metric reached what."""
    ending = after_round(metric("min", evaluation_metric_cutoff_score=0.25), 3, [(3, 0.125)])
    assert ending is not None
    assert ending.reason == "score is 0.125 ≤ 0.25"


@pytest.mark.parametrize(
    ("mode", "scores", "over"),
    [
        ("max", [0.5, 0.6, 0.6, 0.6], True),  # equal is no improvement
        ("max", [0.5, 0.6, 0.5, 0.61], False),
        ("max", [0.6, 0.5, 0.4], True),
        ("max", [0.6, 0.5], False),
        ("min", [0.5, 0.6, 0.7], True),
        ("min", [0.5, 0.6, 0.4], False),
        ("max", [0.5, None, None], True),  # no score is no improvement
        ("max", [0.5, NAN, NAN], True),
        ("max", [NAN, 0.1, 0.2], False),  # NaN is no best score that nothing can beat
        ("max", [None, 0.1], False),
        ("max", [None, None], True),  # a metric that nobody reports does not keep a run alive
        ("max", [0.0, 0.0, 0.0], True),
    ],
)
def test_patience_ends_a_run_that_does_not_improve(mode: str, scores: list[float | None], over: bool) -> None:
    """Two rounds without a strictly better score end it."""
    assert ends(metric(mode, patience_rounds=2), *scores) == ("patience_rounds" if over else None)


def test_patience_is_counted_in_rounds() -> None:
    """Evaluated every fifth round, six rounds without improvement are over at the second evaluation after the best."""
    signals = metric(patience_rounds=6)
    assert after_round(signals, 10, [(5, 0.5), (10, 0.4)]) is None
    assert after_round(signals, 15, [(5, 0.5), (10, 0.4), (15, 0.4)]) is not None


def test_any_one_signal_is_enough() -> None:
    """The rounds are not waited for when the score is reached, nor the score when the rounds are done."""
    signals = metric(evaluation_metric_cutoff_score=0.9, federation_rounds=3)
    assert ends(signals, 0.95) == "evaluation_metric"
    assert ends(signals, 0.1, 0.2, 0.3) == "federation_rounds"


@pytest.mark.parametrize("started_at", [0.0, 1234.5678, 1e9])
def test_the_time_is_over_at_its_minute_and_of_any_length(started_at: float) -> None:
    """The cutoff is in minutes; 30 days are 30 days, not 30 days modulo one."""
    for minutes, seconds in ((0.5, 30.0), (1440.0, 86400.0), (43200.0, 2592000.0)):
        signals = TerminationSignals(execution_cutoff_time_mins=minutes)
        assert out_of_time(signals, started_at, started_at + seconds - 0.001) is None
        ending = out_of_time(signals, started_at, started_at + seconds)
        assert ending is not None
        assert ending.signal == "execution_cutoff_time_mins"
    assert ending is not None
    assert ending.reason == "43200 minutes are over"


@given(started_at=st.floats(0, 1e9), minutes=st.floats(1e-3, 1e6))
def test_at_its_own_deadline_a_run_is_over(started_at: float, minutes: float) -> None:
    """Whoever wakes at start + cutoff finds the run over and need not wake again."""
    signals = TerminationSignals(execution_cutoff_time_mins=minutes)
    assert out_of_time(signals, started_at, started_at + cutoff_s(signals)) is not None


def test_without_that_signal_time_is_never_over() -> None:
    """No cutoff is no end."""
    signals = TerminationSignals(federation_rounds=1)
    assert cutoff_s(signals) == math.inf
    assert out_of_time(signals, 0.0, 1e12) is None


@pytest.mark.parametrize(
    ("signals", "evaluates", "says"),
    [
        ({}, True, "no signal"),
        ({"evaluation_metric": "accuracy"}, True, "needs evaluation_metric_cutoff_score"),
        ({"evaluation_metric": "accuracy", "federation_rounds": 3}, True, "needs evaluation_metric_cutoff_score"),
        ({"evaluation_metric_cutoff_score": 0.9}, True, "need evaluation_metric"),
        ({"evaluation_metric_cutoff_score": 0.0, "federation_rounds": 3}, True, "need evaluation_metric"),
        ({"patience_rounds": 3}, True, "need evaluation_metric"),
        ({"evaluation_metric": "accuracy", "evaluation_metric_cutoff_score": 0.9}, False, "turns evaluation off"),
    ],
)
def test_signals_that_cannot_work_are_refused(signals: dict[str, object], evaluates: bool, says: str) -> None:
    """No signal, half a signal, or one that nothing would ever score is said when the run is posted."""
    with pytest.raises(InvalidConfig, match=says):
        check(TerminationSignals(**signals), evaluates)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "signals",
    [
        {"federation_rounds": 1},
        {"execution_cutoff_time_mins": 0.1},
        {"evaluation_metric": "accuracy", "evaluation_metric_cutoff_score": 0.0},
        {"evaluation_metric": "loss", "evaluation_metric_mode": "min", "patience_rounds": 3},
    ],
)
def test_each_signal_alone_is_enough_for_a_run(signals: dict[str, object]) -> None:
    """One signal that can end the run is accepted; a cutoff score of 0 is one."""
    check(TerminationSignals(**signals), evaluates=True)  # type: ignore[arg-type]
