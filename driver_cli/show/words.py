"""How rounds, scores and learners are written for people, the same in lines, tables and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from services import messages as m
from services.config import RunConfig
from services.failures import split
from services.process import plain_line

SHOWN_METRICS = 4  # of each kind; more do not fit a line


def number(value: float | None) -> str:
    """A score in four digits; a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def scores(metrics: Mapping[str, float | None]) -> str:
    """`accuracy=0.91 loss=0.3`."""
    shown = list(metrics.items())[:SHOWN_METRICS]
    return " ".join(f"{plain_line(name)}={number(value)}" for name, value in shown)


def seconds_of(round_: m.Round) -> float | None:
    """How long a round took."""
    if round_.timings_ms.federation_round is not None:
        return round_.timings_ms.federation_round / 1000
    if round_.completed_at is None:
        return None
    return (datetime.fromisoformat(round_.completed_at) - datetime.fromisoformat(round_.started_at)).total_seconds()


def duration(seconds: float | None) -> str:
    """`0.12 s`, `12 s`, `3 min 5 s`, `2 h 3 min`."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """`512 B`, `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable: the last unit takes all")


def round_title(config: RunConfig, number_: int) -> str:
    """`3/5`, or `3` where the number of rounds is open."""
    total = config.termination.federation_rounds
    return str(number_) if total is None or number_ > total else f"{number_}/{total}"  # one more for each that failed


def took_part(round_: m.Round) -> str:
    """`3/3`: how many of the selected learners' updates count."""
    return f"{len(round_.completed)}/{len(round_.selected)}"


def round_line(config: RunConfig, round_: m.Round) -> str:
    """One round on one line."""
    parts = [f"round {round_title(config, round_.round)}", f"{took_part(round_)} learners"]
    if round_.train_metrics.combined:
        parts.append(f"train {scores(round_.train_metrics.combined)}")
    if round_.evaluation_metrics.combined:
        parts.append(f"eval {scores(round_.evaluation_metrics.combined)}")
    if round_.failure:
        parts.append(f"no model: {split(round_.failure).line}")
    parts.append(duration(seconds_of(round_)))
    parts += [f"{learner} failed: {split(why).line}" for learner, why in round_.failed.items()]
    parts += [capped(learner, one) for learner, one in round_.capped.items()]
    return "  ".join(parts)


def capped(learner: str, one: m.Capped) -> str:
    """`mallory's factor 9.0072e+15 counts as 550000`."""
    return f"{learner}'s factor {one.factor:g} counts as {one.counts:g}"


def failed(round_: m.Round) -> str:
    """`no model, the one before stays: …`."""
    return f"no model, the one before stays: {split(round_.failure or '').line}"


def standing(learner: m.Learner) -> str:
    """`active`, `lost`, `left`; `aside` where it gets no tasks, `failing` where that is near."""
    return learner.state if learner.health == "ok" else f"{learner.state}, {learner.health}"


def put_aside(learners: Sequence[m.Learner]) -> list[str]:
    """A line for each learner that gets no tasks: why, and what lets it back."""
    return [
        plain_line(
            f"{one.name} is put aside and gets no tasks: {one.health_reason}; once that is mended,"
            f" `metis readmit {one.name}` or its restart lets it back"
        )
        for one in sorted(learners, key=lambda learner: learner.name)
        if one.health == "aside"
    ]


def people(learners: Sequence[m.Learner]) -> str:
    """`3 learners (a, b, c)`; only some of many names."""
    names = sorted(learner.name for learner in learners)
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return plural(len(names), "learner") + (f" ({shown})" if names else "")


def progress(given: m.Progress | None) -> str:
    """`epoch 2 batch 10 loss=0.31`."""
    if given is None:
        return ""
    parts = [f"{name} {value}" for name, value in (("epoch", given.epoch), ("batch", given.batch)) if value is not None]
    return " ".join(parts + ([f"loss={number(given.loss)}"] if given.loss is not None else []))


def plural(count: int, noun: str) -> str:
    """`1 learner`, `2 learners`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ending(run: m.Run) -> str:
    """How the run ended, in a line."""
    return f"run {run.id} {run.state}" + (f": {run.reason}" if run.reason else "")
