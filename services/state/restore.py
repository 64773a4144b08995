"""A federation made again of its rows, as it was when they were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..config import canonical, stored
from ..errors import FederationError
from ..failures import split
from ..federation import Assignment, Federation, Member, RoundState, RunState, plan, take_newest
from ..messages import Learner
from ..scheduling import streams
from ..transforms import first_bounds
from .rows import MANIFEST, MEMBER, ROUND, RUN, TASK, UNKNOWN_EVENTS, Row

Rows = Mapping[str, list[Any]]  # by kind


def restore(federation: Federation, rows: Iterable[Row]) -> None:
    """Put what the rows say into a federation that is empty; raises ValueError for rows that make no sense."""
    by_kind: defaultdict[str, list[Any]] = defaultdict(list)
    by_run: defaultdict[str, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    try:
        for row in rows:
            if row.kind == MANIFEST:
                continue
            read = msgspec.json.decode(row.data or b"null")
            (by_run[row.run] if row.run else by_kind)[row.kind].append(read)
        for clock in by_kind["meta"]:
            federation.journal.count = int(clock["events"]) + UNKNOWN_EVENTS
            for digest, size in clock["uploaded"]:
                federation.uploaded.add(digest, size)
        members = [Member(**MEMBER.load(one)) for one in by_kind["member"]]
        for member in sorted(members, key=lambda one: one.joined_at):
            federation.roster.enrol(member, federation.lease_s)
        runs = [_Reading(federation, key, kinds).run() for key, kinds in by_run.items()]
        for run, idempotency in sorted(runs, key=lambda pair: pair[0].started_at):
            federation.resume(run, *idempotency)
    except (msgspec.MsgspecError, KeyError, TypeError, IndexError, AttributeError, FederationError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    federation.changes.clear()


def extend(federation: Federation, away_s: float, now: float) -> None:
    """Nobody could report while the controller was away: leases begin anew, deadlines are that much later."""
    federation.roster.renew(now)
    federation.extend(away_s, now, write=True)


class _Reading:
    """One run of its rows."""

    def __init__(self, federation: Federation, run_id: str, rows: Rows) -> None:
        self._federation = federation
        self._rows = rows
        if len(rows["run"]) != 1:
            raise ValueError(f"run {run_id} has rows, but none of its own")
        self._row: Mapping[str, Any] = rows["run"][0]
        self._tasks = {one.id: one for one in map(_task, rows["task"])}

    def run(self) -> tuple[RunState, tuple[str | None, str]]:
        """The run, and the idempotency key and fingerprint with which it was started."""
        row, config = self._row, stored(self._row["config"])
        text = canonical(self._row["config"])
        over = row["ended_at"] is not None  # it makes no more models, however many updates are kept
        lineage = 0 if over else self._federation.lineage_length
        run = RunState(config=config, config_text=text, plan=plan(config, lineage), **RUN.load(row))
        run.initial = self._listed(row["initial"])
        rounds = sorted((self._round(one) for one in self._rows["round"]), key=lambda one: one.number)
        scored = {one["number"] for one in self._rows["round"] if one["scored"]}
        run.zeroth = next((one for one in rounds if one.number == 0), None)
        run.rounds = [one for one in rounds if one.number > 0]
        run.open = [one for number in row["open"] for one in rounds if one.number == number]
        done = [one for one in run.rounds if one.model or one.failure]
        run.bounds = [first_bounds(run.plan.transforms), *(one.bounds for one in done)]
        for one in sorted(run.rounds, key=lambda one: one.completed_at or 0.0):
            if one.number in scored:
                run.note_score(one)
        self._participants(run)
        self._stream(run)
        for one in run.rounds:
            if one.model is not None:
                run.take_shift(one, run.shift_of(one), self._federation.runs.kept_rounds)
        run.forget_holders(lambda key: self._federation.roster.find(key) is None)
        idempotency = row["idempotency"]
        return run, (idempotency[0], idempotency[1]) if idempotency else (None, "")

    def _participants(self, run: RunState) -> None:
        together = (one for rows in self._rows["participants"] for one in rows.values())  # as they were written in 0.1
        shown = [Learner.model_validate(one) for one in (*together, *self._rows["participant"])]
        for one in sorted(shown, key=lambda learner: learner.last_seen):
            (run.departed if one.state == "left" else run.participants)[one.id] = one

    def _stream(self, run: RunState) -> None:
        stream, row = run.stream, self._row
        stream.training = {key: self._tasks[one] for key, one in row["training"].items()}
        stream.arrived, stream.ended = self._listed(row["arrived"]), self._listed(row["ended"])
        stream.resting, stream.since = set(row["resting"]), row["since"]
        stream.left = row["left"] or any(one.anew for one in run.open if one.model is None)
        if streams(run.plan.scheduler):
            made = [one for one in run.rounds if one.model is not None]
            known = {member.id for member in self._federation.roster}
            for one in made:
                take_newest(run, one)
            stream.newest = {key: share for key, share in stream.newest.items() if key in known}

    def _round(self, row: Mapping[str, Any]) -> RoundState:
        one = RoundState(**ROUND.load(row))
        one.train = {key: self._tasks[task] for key, task in row["train"].items()}
        one.evaluate = {key: self._tasks[task] for key, task in row["evaluate"].items()}
        return one

    def _listed(self, ids: Iterable[str]) -> list[Assignment]:
        return [self._tasks[one] for one in ids]


def _task(row: Mapping[str, Any]) -> Assignment:
    task = Assignment(**TASK.load(row))
    if task.state == "failed" and task.reason:  # 0.1 kept all that a learner told in one
        task.reason, task.traceback = split(task.reason, task.traceback)
    return task
