"""The runs of a federation: the active one, those that have ended, and the keys by which a start may be repeated.

Beside them the models that an operator put and no run uses yet.
"""

from __future__ import annotations

from collections import OrderedDict

from ..errors import DifferentBody, UnknownRun
from .changes import Changes
from .rounds import ModelInfo
from .run import RunState

MAX_RUNS = 100  # that are remembered, the active one among them


class Runs(dict[str, RunState]):
    """By id, oldest first."""

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self.active: RunState | None = None
        self.kept_rounds = 1  # how many of each run can be made again, where updates are; 0: all, 1: as it happens
        self._changes = changes
        self._keys: dict[str, tuple[str, str]] = {}  # idempotency key to fingerprint and run id

    def named(self, run_id: str) -> RunState:
        """A run by id, `current` (the active one) or `latest`; raises UnknownRun."""
        if run_id == "current":
            if self.active is None:
                raise UnknownRun("no run is active", id=run_id)
            return self.active
        if run_id == "latest":
            if not self:
                raise UnknownRun("no run was started yet", id=run_id)
            return next(reversed(self.values()))
        if run_id not in self:
            raise UnknownRun(f"there is no run {run_id!r}", id=run_id)
        return self[run_id]

    def started_with(self, key: str | None, fingerprint: str) -> RunState | None:
        """The run that this idempotency key started; raises DifferentBody if that had another configuration."""
        if key is None or key not in self._keys:
            return None
        before, run_id = self._keys[key]
        if before != fingerprint:
            raise DifferentBody("this Idempotency-Key was used with another configuration", key=key)
        return self.named(run_id)

    def key_of(self, run_id: str) -> tuple[str, str] | None:
        """The idempotency key with which a run was started, and the fingerprint of its configuration."""
        return next(((key, said) for key, (said, run) in self._keys.items() if run == run_id), None)

    def kept_models(self) -> set[str]:
        """Digests of the models that the runs need, or needed for the rounds that are kept."""
        return {digest for run in self.values() for digest in run.kept_models(self.kept_rounds)}

    def kept_states(self) -> set[str]:
        """Keys of the states of rules and server optimizers that the active run goes on with, or that were needed."""
        return {key for run in self.values() for key in run.kept_states(self.kept_rounds)}

    def verifiable(self) -> list[ModelInfo]:
        """See RunState.verifiable."""
        return [info for run in self.values() for info in run.verifiable(self.kept_rounds)]

    def add(self, run: RunState, key: str | None, fingerprint: str) -> list[RunState]:
        """A run, the newest; returns those that are forgotten for it."""
        self[run.id] = run
        self.active = self.active if run.over else run
        self._changes.runs.add(run.id)
        if key is not None:
            self._keys[key] = (fingerprint, run.id)
        forgotten = [self.pop(next(iter(self))) for _ in range(len(self) - MAX_RUNS)]
        for old in forgotten:
            self._changes.forgotten.add(old.id)
            self._keys = {key: value for key, value in self._keys.items() if value[1] != old.id}
        return forgotten


UPLOADED_KEPT = 8  # the newest


class Uploaded(OrderedDict[str, int]):
    """Size in bytes by digest, the newest last."""

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self._changes = changes

    def add(self, digest: str, size: int) -> None:
        """The newest; the oldest may be forgotten for it."""
        self[digest] = size
        self.move_to_end(digest)
        self._changes.uploaded = True
        while len(self) > UPLOADED_KEPT:
            self.popitem(last=False)
