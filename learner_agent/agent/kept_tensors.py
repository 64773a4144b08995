"""Tensors that a learner keeps for itself: in memory, and in files that a restarted agent reads.

Its `local` ones never leave (LocalTensors). In a run with an algorithm (services/algorithms.py) it holds something of
its own, such as a control variate (OwnExtras). A file is a weights document that only its user may read. It is replaced
as a whole: an agent that is killed meanwhile leaves what was there before, or what was to be there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from services import messages as m
from services.errors import MalformedUpdate
from services.process import open_private
from services.weights import Array, Buffer, Document, Tensor, wire

log = structlog.get_logger("learner")
Groups = Mapping[str, Sequence[Tensor]]
LAST_COUNTED = "last_counted"  # of a task's config: the round of the learner's newest update that was counted
RUN, COUNTED, SENT = "run_id", "counted", "sent"


class LocalTensors:
    """By name, of one run; those of the run before go on where the learner keeps them."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._run_id: str | None = None
        self._values: dict[str, Array] = {}

    def of(self, run_id: str, keeps: bool, first: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """The values with which a task of this run begins: kept ones, else the learner's `first`."""
        if self._run_id is None and (saved := _load(self._file)):
            self._run_id = str(saved.metadata.get(RUN))
            self._values = {tensor.name: tensor.array.copy() for tensor in saved.tensors}
        if self._run_id != run_id and not (keeps and self._values):
            self._values = {}
        self._run_id = run_id
        return {**first(), **self._values}

    def keep(self, run_id: str, values: Mapping[str, Array]) -> None:
        """What a task of this run has made of them. Raises OSError when the file cannot be written."""
        self._run_id = run_id
        self._values.update({name: array.copy() for name, array in values.items()})
        if self._file is not None:
            tensors = [Tensor(name, array) for name, array in self._values.items()]
            _save(self._file, wire.encode(tensors, metadata={RUN: run_id}))


class OwnExtras:
    """Groups of tensors by name, of one run: the sum of the differences that were sent and counted.

    Which of its updates was counted the controller says with each task: one may be sent and not be counted, and an
    agent may be killed before it hears of it.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._loaded = file is None
        self._run_id: str | None = None
        self._counted: int | None = None  # the newest round in `_own`
        self._sent_in: int | None = None  # the round of `_sent`
        self._own: dict[str, dict[str, Array]] = {}
        self._sent: dict[str, dict[str, Array]] = {}

    def of(self, task: m.Task, given: Groups) -> dict[str, list[Tensor]]:
        """What the learner holds as a task begins, float64, in the form of what the task gives."""
        if not self._loaded:
            self._load()
        counted = task.config[LAST_COUNTED]
        if counted is None or task.run_id != self._run_id:
            if counted is not None:
                log.warning("what this learner held in the run is lost", run=task.run_id, round=counted)
            self._own, self._counted = {}, counted
        elif counted == self._sent_in and counted != self._counted:
            for name, group in self._sent.items():
                own = self._own.setdefault(name, {})
                for key, array in group.items():
                    own[key] = own[key] + array if key in own else array.astype(np.float64)
            self._counted = counted
        self._run_id, self._sent, self._sent_in = task.run_id, {}, None
        return {
            name: [one._replace(array=self._own.get(name, {}).get(one.name, np.zeros(one.shape))) for one in group]
            for name, group in given.items()
        }

    def send(self, task: m.Task, extra: Groups) -> None:
        """These differences are about to be sent. Raises OSError when the file cannot be written."""
        self._sent = {name: {one.name: one.array for one in group} for name, group in extra.items()}
        self._sent_in = task.round
        if self._file is not None:
            groups = {f"{COUNTED}/{name}": group for name, group in self._own.items()}
            groups |= {f"{SENT}/{name}": group for name, group in self._sent.items()}
            told: dict[str, Any] = {RUN: self._run_id, COUNTED: self._counted, SENT: self._sent_in}
            tensors = {name: [Tensor(key, array) for key, array in group.items()] for name, group in groups.items()}
            _save(self._file, wire.encode([], metadata=told, extra=tensors))

    def _load(self) -> None:
        self._loaded = True
        if (saved := _load(self._file)) is None:
            return
        told: dict[str, Any] = dict(saved.metadata)
        self._run_id, self._counted, self._sent_in = told.get(RUN), told.get(COUNTED), told.get(SENT)
        for label, group in saved.extra.items():
            kind, _, name = label.partition("/")
            known = self._own if kind == COUNTED else self._sent
            known[name] = {one.name: one.array.copy() for one in group}


def _save(path: Path, parts: Sequence[Buffer]) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _load(path: Path | None) -> Document | None:
    """What was saved; None for nothing, and for what is no document."""
    if path is None:
        return None
    try:
        with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
            return wire.decode(file.read())
    except (FileNotFoundError, MalformedUpdate):
        return None
