"""The batches of one task: so many epochs, or exactly so many batches, and how long they took.

This is what a scheduler that budgets batches asks of a learner (SemiSynchronous; Stripelis & Ambite 2021).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice, repeat
from typing import Any, Generic, TypeVar

B = TypeVar("B")


class TimedBatches(Generic[B]):
    """Goes over `batches` until a task is done: `for batch in TimedBatches(loader, config): …`.

    It is done after `config["num_local_updates"]` batches if that is given, else after `config["epochs"]` epochs, or 1.
    `metadata` then tells how it went. A batch is over when the next one is asked for; its time is that of loading it
    and of what was done with it.
    """

    def __init__(
        self, batches: Iterable[B], config: Mapping[str, Any], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`batches` can be gone through several times, as a list or a data loader can. Raises ValueError."""
        self._batches, self._clock = batches, clock
        self._budget = _count("num_local_updates", config.get("num_local_updates"))
        self._epochs = _count("epochs", config.get("epochs"))
        self._per_epoch = _length(batches)
        self._completed, self._spent_s = 0, 0.0

    def __iter__(self) -> Iterator[B]:
        """One batch after the other. Raises ValueError when there is none."""
        epochs = repeat(None, self._epochs or 1) if self._budget is None else repeat(None)
        batches = chain.from_iterable(self._epoch() for _ in epochs)
        self._completed, self._spent_s = 0, 0.0
        begun = self._clock()
        for batch in islice(batches, self._budget):
            yield batch
            self._completed += 1
            self._spent_s = self._clock() - begun

    @property
    def metadata(self) -> dict[str, int | float]:
        """`num_completed_batches`, `processing_ms_per_batch` and `processing_ms_per_epoch`, as the update carries them.

        Without the last one while nobody knows how many batches an epoch has, without times before the first batch.
        """
        told: dict[str, int | float] = {"num_completed_batches": self._completed}
        if self._completed:
            told["processing_ms_per_batch"] = per_batch = 1000 * self._spent_s / self._completed
            if self._per_epoch is not None:
                told["processing_ms_per_epoch"] = per_batch * self._per_epoch
        return told

    def _epoch(self) -> Iterator[B]:
        count = 0
        for batch in self._batches:
            count += 1
            yield batch
        if not count:
            raise ValueError("there is no batch: there are no data, or they can be gone through only once")
        self._per_epoch = count


def _length(batches: Iterable[Any]) -> int | None:
    """How many batches an epoch has; None when only going through them tells."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return None


def _count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value
