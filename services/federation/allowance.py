"""What learners may tell beside their results: as much as they like with each, until it is much in all of a run.

What is told is kept with the run and shown in its results. Of a learner that has used up its allowance the first few
kilobytes of each further result are kept and count, what runs read before anything else, and no further traceback.
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
            self._add(task.learner_id, _beyond_free(task.outcome) if task.outcome else _size(task.traceback))

    def keep(self, learner_id: str, outcome: Outcome) -> tuple[Outcome, bool]:
        """A result as it is kept, and whether it is the first of its learner of which that is not all."""
        if self._use(learner_id, _beyond_free(outcome)):
            return outcome, False
        kept = replace(outcome, metadata=self._first(outcome.metadata), metrics=self._first(outcome.metrics))
        return kept, self._first_time(learner_id)

    def keep_traceback(self, learner_id: str, traceback: str | None) -> tuple[str | None, bool]:
        """The traceback of a failure as it is kept, all of it or nothing, and whether it is the first of its learner
        that is not."""
        kept = self._use(learner_id, _size(traceback))
        return (traceback, False) if kept else (None, self._first_time(learner_id))

    def used_up(self, task: Assignment) -> str:
        """That the learner of a task has nothing left, in words."""
        return (
            f"{task.learner} has told {self._most} bytes of metrics, metadata and tracebacks in this run: of each"
            f" further result what comes first in {FREE_BYTES} bytes is kept, of a failure a line (METIS_TOLD_BYTES)"
        )

    def _use(self, learner_id: str, size: int) -> bool:
        """Whether so much may still be told; then it is."""
        if size and self._used.get(learner_id, 0) + size > self._most:
            return False
        self._add(learner_id, size)
        return True

    def _add(self, learner_id: str, size: int) -> None:
        if size:
            self._used[learner_id] = self._used.get(learner_id, 0) + size

    def _first_time(self, learner_id: str) -> bool:
        first = learner_id not in self._spent
        self._spent.add(learner_id)
        return first

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


def _size(traceback: str | None) -> int:
    return _bytes("", traceback) if traceback else 0


def _bytes(key: str, value: Any) -> int:
    return ENTRY_BYTES + len(key) + (len(value) if isinstance(value, str) else 0)
