"""Tables of the federation, its learners and a run's rounds as text; the live view draws the same cells in colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services import messages as m
from services.config import RunConfig
from services.process import plain_line

from . import words


def columns(rows: Sequence[Sequence[str]], flush_right: bool = True) -> str:
    """Rows of cells, each column as wide as its widest cell."""
    rows = [[plain_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    sign = ">" if flush_right else "<"
    lines = ["  ".join(f"{cell:{sign}{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


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


def status(url: str, found: m.FederationStatus, rounds: Sequence[m.Round]) -> str:
    """The federation at a glance."""
    here = [learner for learner in found.learners if learner.state == "active"]
    lost = [learner for learner in found.learners if learner.state == "lost"]
    lines = [
        ("controller", f"{url}, version {found.version}, {'open to all' if found.open else 'asks for tokens'}"),
        ("models", f"{found.model_store}, {'kept over a restart' if found.durable else 'lost at a restart'}"),
        ("state", found.state + (f": {found.waiting_for}" if found.waiting_for else "")),
        ("learners", words.people(here) + (f", and {words.people(lost)} lost" if lost else "")),
    ]
    lines += [("", text) for text in words.put_aside(found.learners)]
    if found.run is not None:
        lines += _run(found.run, rounds)
    return "\n".join(f"{name:<11}{text}" for name, text in lines)


def learners(found: Sequence[m.Learner]) -> str:
    """A line a learner."""
    head = ["name", "state", "last heard", "examples", "task", "id"]
    rows = [
        [
            one.name,
            words.standing(one),
            f"{words.duration(one.last_seen_s)} ago",
            "-" if one.num_training_examples is None else str(one.num_training_examples),
            (words.progress(one.progress) or "at work") if one.task else "-",
            one.id,
        ]
        for one in sorted(found, key=lambda learner: learner.name)
    ]
    if not rows:
        return "no learner is here; `metis-learner` starts one"
    aside = words.put_aside(found)
    return "\n".join([columns([head, *rows], flush_right=False), *([""] if aside else []), *aside])


def rounds(run: m.Run, found: Sequence[m.Round]) -> str:
    """A line a round, and how the run stands."""
    closed = [one for one in found if one.state == "closed"]
    head, rows = rounds_cells(run.config, closed, {})
    stands = words.ending(run) if run.state in m.TERMINAL else _going_on(run)
    return "\n\n".join([*([columns([head, *rows])] if rows else []), *remarks(run.config, closed), stands])


def remarks(config: RunConfig, found: Sequence[m.Round]) -> list[str]:
    """Paragraphs that name rounds that made no model, and whose factors were capped; none when all was well."""
    named = {
        "rounds that failed:": [(one, words.failed(one)) for one in found if one.failure],
        "scaling factors that were capped (schedule.factor_cap):": [
            (one, words.capped(learner, factor)) for one in found for learner, factor in one.capped.items()
        ],
    }
    return [
        "\n".join([title, *(f"round {words.round_title(config, one.round)}: {text}" for one, text in lines)])
        for title, lines in named.items()
        if lines
    ]


def _run(run: m.Run, rounds_: Sequence[m.Round]) -> list[tuple[str, str]]:
    named = f"{run.id} ({run.name})" if run.name else run.id
    lines = [("run", f"{named}: {run.state}, round {words.round_title(run.config, run.round)}")]
    if run.reason:
        lines.append(("", run.reason))
    scored = [one for one in rounds_ if one.evaluation_metrics.combined]
    if scored:
        lines.append(("scores", f"{words.scores(scored[-1].evaluation_metrics.combined)} (round {scored[-1].round})"))
    if run.best_round is not None:
        lines.append(("best", f"round {run.best_round}"))
    return lines


def _going_on(run: m.Run) -> str:
    return f"run {run.id} {run.state}" + (f": {run.waiting_for}" if run.waiting_for else "")


def _names(metrics: Iterable[m.Metrics]) -> list[str]:
    return list(dict.fromkeys(name for given in metrics for name in given))[: words.SHOWN_METRICS]


def _values(metrics: m.Metrics, names: Sequence[str]) -> list[str]:
    return [words.number(metrics.get(name)) for name in names]
