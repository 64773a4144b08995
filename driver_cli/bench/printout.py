"""What the bench measured as tables, for a terminal and for a Markdown page."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..show import tables
from .machine import Machine
from .measurements import BenchReport, Case, Durability, Idle, Spread

Rows = Sequence[Sequence[str]]
Table = tuple[str, Rows]  # what it shows, and its rows; the first is the head
TIMINGS = (
    "train_dispatch",
    "train_round",
    "aggregation",
    "evaluation_dispatch",
    "evaluation_round",
    "federation_round",
)
T = TypeVar("T")
NOT_KNOWN = "-"


def text(reports: Sequence[BenchReport]) -> str:
    """For a terminal."""
    parts = [f"{title}\n{tables.columns(rows, flush_right=len(rows[0]) > 2)}" for title, rows in _tables(reports)]
    return "\n\n".join([*_machines(reports), *parts])


def markdown(reports: Sequence[BenchReport]) -> str:
    """For a page."""
    parts = [f"{title}\n\n{_markdown(rows)}" for title, rows in _tables(reports)]
    return "\n\n".join([*_machines(reports), *parts])


def _tables(reports: Sequence[BenchReport]) -> list[Table]:
    found: list[Table] = []
    cases = sorted((case for one in reports for case in one.cases), key=_order)
    for store in dict.fromkeys(case.model_store for case in cases):
        some = [case for case in cases if case.model_store == store]
        found.append((f"Milliseconds a round, medians, `{store}`:", [_timings_head(), *map(_timings, some)]))
        found.append((f"What a round costs, `{store}`:", [_costs_head(), *map(_costs, some)]))
    found += [_idle(one.idle) for one in reports if one.idle]
    if durable := [each for one in reports for each in one.durability]:
        found.append(("What durability costs, milliseconds a round, in turns:", _durability(durable)))
    return found


def _order(case: Case) -> tuple[str, int, int]:
    return case.model_store, case.params, case.learners


# ---- rows
def _timings_head() -> list[str]:
    named = [name.replace("_", " ") for name in TIMINGS]
    return ["parameters", "learners", *named, "floor", "ratio", "lowest to highest"]


def _timings(case: Case) -> list[str]:
    whole = case.timings_ms["federation_round"]
    return [
        f"{case.params:,}",
        str(case.learners),
        *(_known(case.timings_ms.get(name), lambda spread: _number(spread.median)) for name in TIMINGS),
        _known(case.floor, lambda floor: _number(1000 * floor.round_s.median)),
        _known(case.ratio, lambda ratio: f"{ratio:.2f}"),
        f"{_number(whole.min)} to {_number(whole.max)}",
    ]


def _costs_head() -> list[str]:
    return [
        *("parameters", "learners", "controller CPU s", "floor CPU s", "ratio", "learners CPU s", "floor CPU s"),
        *("anonymous MB", "shared MB", "resident MB", "MB down", "MB up", "load"),
    ]


def _costs(case: Case) -> list[str]:
    floor = case.floor
    return [
        f"{case.params:,}",
        str(case.learners),
        _known(case.cpu_s.server, _seconds),
        _known(floor.cpu_s.server if floor else None, _seconds),
        _known(case.cpu_ratio, lambda ratio: f"{ratio:.2f}"),
        _known(case.cpu_s.learners, _seconds),
        _known(floor.cpu_s.learners if floor else None, _seconds),
        _known(case.memory.anonymous_mb, lambda mb: f"{mb:.0f}"),
        _known(case.memory.shared_mb, lambda mb: f"{mb:.0f}"),
        _known(case.memory.resident_mb, lambda mb: f"{mb:.0f}"),
        _number(case.bytes_down / 1e6),
        _number(case.bytes_up / 1e6),
        f"{case.load[0]:.1f} to {case.load[1]:.1f}",
    ]


def _idle(idle: Idle) -> Table:
    last, after = idle.last_task_ms, idle.last_task_after_post_ms
    rows = [
        ["", "measured"],
        ["polls that wait", f"{idle.polls:,}, each for {idle.wait_s:g} s"],
        ["all enrolled and waiting after", f"{idle.enrol_s:.1f} s"],
        ["CPU of the controller meanwhile", _known(idle.enrol_cpu_s, lambda s: f"{s:.1f} s")],
        ["anonymous memory added", _known(idle.added_mb, lambda mb: f"{mb:.1f} MB")],
        ["of that a poll", _known(idle.added_kib_per_poll, lambda kib: f"{kib:.1f} KiB")],
        ["then watched for", f"{idle.watched_s:g} s, in which {idle.ended_polls:,} polls ended and were made again"],
        ["share of a core", _known(idle.cpu_percent, lambda share: f"{share:.2f} %")],
        ["share of a core while no poll ended", _known(idle.cpu_percent_quiet, lambda share: f"{share:.2f} %")],
        [f"last of {idle.woken:,} has its task after", _range(last.median, last.min, last.max, idle.runs)],
        ["the same, from when the run was sent", _range(after.median, after.min, after.max, idle.runs)],
        ["load", f"{idle.load[0]:.1f} to {idle.load[1]:.1f}"],
    ]
    return "Learners that wait:", rows


def _durability(several: Sequence[Durability]) -> Rows:
    rows = [["parameters", "learners", "store", "median", "lowest to highest", "ratio"]]
    for one in several:
        for store, values in one.rounds_ms.items():
            spread = Spread.of(values)
            between = f"{_number(spread.min)} to {_number(spread.max)}"
            shown = (f"{one.params:,}", str(one.learners), store, _number(spread.median), between)
            rows.append([*shown, f"{one.ratio(store):.2f}"])
    return rows


# ---- how values are written
def _known(value: T | None, written: Callable[[T], str]) -> str:
    return NOT_KNOWN if value is None else written(value)


def _number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _seconds(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def _range(median: float, low: float, high: float, runs: int) -> str:
    return f"{median:.0f} ms (median of {runs} runs, {low:.0f} to {high:.0f})"


def _machines(reports: Sequence[BenchReport]) -> list[str]:
    """A paragraph for each machine, with a line for each time that it measured."""
    times: dict[str, list[str]] = {}
    for one in reports:
        times.setdefault(_machine(one.machine), []).append(_when(one.machine))
    return ["\n".join([textwrap.fill(name, 116, break_on_hyphens=False), "", *when]) for name, when in times.items()]


def _machine(machine: Machine) -> str:
    memory = f", {machine.memory_gb:g} GB" if machine.memory_gb else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"{machine.cpus} cores ({machine.model}){memory}, {machine.system}, Python {machine.python}; {versions}."


def _when(machine: Machine) -> str:
    before, after = (" ".join(f"{value:.1f}" for value in loads) for loads in (machine.load_before, machine.load_after))
    return f"- {machine.at}: load averages {before} before, {after} after"


def _markdown(rows: Rows) -> str:
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|---|{'---:|' * (len(rows[0]) - 1)}", *others])
