"""What changed in a federation, as rows: a kind, a key, the run that it belongs to, and JSON.

Rows are small and refer to one another by ids, so that a change costs as much as what changed. What can be told from
others is not written: scores, the best model, how often a learner was chosen, a learner's newest update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import Raw

from ..federation import Assignment, Federation, Member, RoundState, RunState
from .record import Record, dump


class Row(NamedTuple):
    """Something that is remembered. Without `data` it is to be forgotten."""

    kind: str
    key: str
    run: str  # empty when it belongs to none
    data: bytes | None


@dataclass(frozen=True)
class Batch:
    """Rows that belong together: all of them are written, or none."""

    rows: list[Row]
    forgotten: list[str]  # runs whose rows are to be removed


UNKNOWN_EVENTS = 10_000  # that may have been told after the last that was written: no number is used twice
MANIFEST = "manifest"  # the kind of rows that only `metis verify` reads
MEMBER = Record(Member, but=("waiting", "progress"))
TASK = Record(Assignment)
ROUND = Record(RoundState, but=("train", "evaluate", "taken"))
RUN = Record(
    RunState,
    but=(
        *("config", "config_text", "plan", "rounds", "zeroth", "open", "initial", "stream", "departed", "participants"),
        *("allowance", "history", "controls", "shifts", "best", "scores", "bounds"),
        *("aggregator_state", "optimizer_state"),
    ),
)


class _Closed:
    """Rounds of a run that were closed when they were written: they do not change any more."""

    def __init__(self) -> None:
        self._all_before = 0  # index
        self._after: set[int] = set()  # numbers, while an earlier round is open

    def take_others(self, rounds: Sequence[RoundState]) -> list[RoundState]:
        """The others; those of them that are closed by now count from now on."""
        others = [one for one in rounds[self._all_before :] if one.number not in self._after]
        self._after |= {one.number for one in others if one.state == "closed"}
        while self._all_before + 1 in self._after:
            self._all_before += 1
            self._after.remove(self._all_before)
        return others


class Recorder:
    """Of one federation: knows which rounds were written when they had closed."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._closed: dict[str, _Closed] = {}  # by run
        self._events = federation.journal.count  # that are written

    @property
    def due(self) -> bool:
        """Whether there is something to write."""
        untold = self._federation.journal.count - self._events
        return bool(self._federation.changes) or untold > UNKNOWN_EVENTS // 2

    def take(self) -> Batch:
        """The rows of what changed since the last call."""
        changes, rows = self._federation.changes, [self._meta()]
        for key in changes.members:
            member = self._federation.roster.find(key)
            rows.append(Row("member", key, "", MEMBER.dump(member) if member else None))
        for key in changes.tasks:
            if task := self._federation.offers.find(key):
                rows.append(Row("task", key, task.run_id, TASK.dump(task)))
        for key in changes.runs:
            rows += self._run(self._federation.runs[key]) if key in self._federation.runs else []
        for run_id, learner_id in changes.participants:
            if run := self._federation.runs.get(run_id):
                shown = run.departed.get(learner_id) or run.participants.get(learner_id)
                rows.append(Row("participant", f"{run_id}/{learner_id}", run_id, dump(shown) if shown else None))
        rows += [Row(MANIFEST, one.key, one.run_id, dump(one)) for one in changes.manifests]
        batch = Batch(rows, sorted(changes.forgotten))
        for key in changes.forgotten:
            self._closed.pop(key, None)
        changes.clear()
        return batch

    def _meta(self) -> Row:
        journal, uploaded = self._federation.journal, list(self._federation.uploaded.items())
        self._events = journal.count
        return Row("meta", "clock", "", dump({"epoch": journal.epoch, "events": journal.count, "uploaded": uploaded}))

    def _run(self, run: RunState) -> list[Row]:
        rows = [Row("run", run.id, run.id, RUN.dump(run, **self._beside(run)))]
        closed = self._closed.setdefault(run.id, _Closed())
        changed = ([run.zeroth] if run.zeroth else []) + closed.take_others(run.rounds)
        scored = {number for number, _ in run.scores}
        rows += [Row("round", f"{run.id}/{one.number}", run.id, _round(one, one.number in scored)) for one in changed]
        return rows

    def _beside(self, run: RunState) -> dict[str, Any]:
        stream, key = run.stream, self._federation.runs.key_of(run.id)
        return {
            "config": Raw(run.config_text.encode()),
            "idempotency": key,
            "open": [one.number for one in run.open],
            "initial": [task.id for task in run.initial],
            "training": {key: task.id for key, task in stream.training.items()},
            "arrived": [task.id for task in stream.arrived],
            "ended": [task.id for task in stream.ended],
            "resting": sorted(stream.resting),
            "left": stream.left,
            "since": stream.since,
        }


def _round(one: RoundState, scored: bool) -> bytes:
    train = {key: task.id for key, task in one.train.items()}
    evaluate = {key: task.id for key, task in one.evaluate.items()}
    return ROUND.dump(one, train=train, evaluate=evaluate, scored=scored)


__all__ = ["MANIFEST", "MEMBER", "ROUND", "RUN", "TASK", "Batch", "Recorder", "Row"]
