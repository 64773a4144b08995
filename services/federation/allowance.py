"""What learners may tell beside their results: as much as they like with each, until it is much in all of a run.

What is told is kept with the run and shown in its results. Of a learner that has used up its allowance the first few
kilobytes of each further result are kept and count, what runs read before anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..scheduling import PER_BATCH, PER_EPOCH
from .rounds import Assignment, Outcome
from .scores import EXAMPLES

TOLD_BYTES = 1 << 22
FREE_BYTES = 1 << 12  # of each result, which use nothing up
ENTRY_BYTES = 100  # that an entry takes beside its characters, about
READ = (EXAMPLES, "num_training_examples", "num_completed_batches", PER_EPOCH, PER_BATCH, "accuracy", "loss")


class Allowance:
    """Of the learners of one run, `most` bytes each."""

    def __init__(self, most: int = TOLD_BYTES, watched: str | None = None, done: Iterable[Assignment] = ()) -> None:
        """`watched` is the metric that may end the run; `done` are tasks with results that are kept already."""
        self._most = most
        self._read = {*READ, watched}
        self._used: dict[str, int] = {}  # by learner's id
        self._spent: set[str] = set()  # learners that have used it up
        for task in done:
            if task.outcome is not None:
                self._use(task.learner_id, task.outcome)

    def keep(self, learner_id: str, outcome: Outcome) -> tuple[Outcome, bool]:
        """A result as it is kept, and whether it is the first of its learner of which that is not all."""
        if self._used.get(learner_id, 0) + _beyond_free(outcome) <= self._most:
            self._use(learner_id, outcome)
            return outcome, False
        first = learner_id not in self._spent
        self._spent.add(learner_id)
        return replace(outcome, metadata=self._first(outcome.metadata), metrics=self._first(outcome.metrics)), first

    def used_up(self, task: Assignment) -> str:
        """That the learner of a task has nothing left, in words."""
        return (
            f"{task.learner} has told {self._most} bytes of metrics and metadata in this run: of each further result"
            f" what comes first in {FREE_BYTES} bytes is kept (METIS_TOLD_BYTES)"
        )

    def _use(self, learner_id: str, outcome: Outcome) -> None:
        if beyond := _beyond_free(outcome):
            self._used[learner_id] = self._used.get(learner_id, 0) + beyond

    def _first(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        kept, left = {}, FREE_BYTES // 2
        for key in sorted(entries, key=lambda key: key not in self._read):
            left -= _bytes(key, entries[key])
            if left < 0:
                break
            kept[key] = entries[key]
        return {key: kept[key] for key in entries if key in kept}


def _beyond_free(outcome: Outcome) -> int:
    told = (*outcome.metadata.items(), *outcome.metrics.items())
    return max(0, sum(_bytes(key, value) for key, value in told) - FREE_BYTES)


def _bytes(key: str, value: Any) -> int:
    return ENTRY_BYTES + len(key) + (len(value) if isinstance(value, str) else 0)
