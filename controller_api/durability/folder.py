"""The folder of a durable controller: its lock, its state, and how it goes on from there after a restart."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from services.engine import load_state
from services.errors import InvalidConfig, InvalidUpdate, UnknownModel
from services.federation import Assignment, Federation, ModelInfo, RunState
from services.state import NAME, Database, Ownership, extend, restore
from services.store import ModelStore

from .models import Models

log = structlog.get_logger("controller")


class Folder:
    """Owned by this process from now on. Raises InvalidConfig for a folder that is another's, or unreadable."""

    def __init__(self, path: Path) -> None:
        self.ownership = Ownership(path)
        try:
            self.database = Database(path / NAME)
        except BaseException:
            self.ownership.close()
            raise

    def fill(self, federation: Federation) -> None:
        """Put what was written down into a federation that is empty."""
        try:
            restore(federation, self.database.rows())
        except ValueError as error:
            self.close()
            raise InvalidConfig(f"{self.database.path} does not hold the state of a federation: {error}") from error

    def epoch(self) -> float:
        """Wall-clock time at which the federation's clock was 0."""
        return self.database.epoch() or time.time() - time.monotonic()

    def close(self) -> None:
        """Give the folder back."""
        self.database.close()
        self.ownership.close()

    async def resume(self, federation: Federation, models: Models, store: ModelStore, now: float) -> set[str]:
        """Go on where the last process ended. Returns the learners that left and whose updates are still awaited."""
        alive_at = self.ownership.alive_at()
        away_s = 0.0 if alive_at is None else max(0.0, now - (alive_at - federation.journal.epoch))
        extend(federation, away_s, now)
        left = await asyncio.to_thread(_tidy, federation, store)
        run = federation.active
        if run is not None:
            log.info("going on", run=run.id, round=run.round, state=run.state, away_s=round(away_s, 1))
        lost: list[str] = []
        for info in _infos(federation):
            try:
                await models.hold(info)
            except (UnknownModel, InvalidUpdate) as error:
                log.warning("a model is lost", model=info.digest, error=error.detail)
                lost += [error.detail] if run and info.digest in run.kept_models() else []
        try:
            if run is not None:
                await asyncio.to_thread(_load_states, run, store)
        except (UnknownModel, InvalidUpdate) as error:
            lost.append(error.detail)
        if run is not None and lost:
            models.lost(run, lost[0], now)
        for info in federation.runs.verifiable():  # a run can go on without
            with suppress(UnknownModel, InvalidUpdate):
                await models.hold(replace(info, coded=None))
        models.know_states(federation.runs.kept_states())
        return left


def _load_states(run: RunState, store: ModelStore) -> None:
    made = [one for one in run.rounds if one.model]
    for one in made[-1:]:
        run.aggregator_state, run.optimizer_state = [load_state(store, key) for key in one.states]


def _infos(federation: Federation) -> Iterator[ModelInfo]:
    """The models that are kept, without what stands for them or goes with them and is not."""
    kept = federation.kept_models()
    found: dict[str, ModelInfo] = {digest: ModelInfo(digest, size) for digest, size in federation.uploaded.items()}
    for run in federation.runs.values():
        used = [run.model, run.previous, run.best[2] if run.best else None]
        used += [info for one in run.open for info in (one.parent, one.model)]
        used += [task.model for task in run.tasks() if task.state == "offered"]
        used += [task.model for task in run.stream.arrived]
        found |= {info.digest: info for info in used if info is not None}
    for info in found.values():
        if info.digest in kept:
            yield replace(info, coded=_if_kept(info.coded, kept), inputs=_kept(info.inputs, kept))


def _if_kept(info: ModelInfo | None, kept: set[str]) -> ModelInfo | None:
    return info if info is not None and info.digest in kept else None


def _kept(inputs: Mapping[str, ModelInfo], kept: set[str]) -> dict[str, ModelInfo]:
    return {name: info for name, info in inputs.items() if info.digest in kept}


def _tidy(federation: Federation, store: ModelStore) -> set[str]:
    """Drop what nobody refers to, tell the store whose update is whose. Returns as `Folder.resume`."""
    held = set(store.keys())
    used: set[Any] = federation.kept_models() | federation.runs.kept_states()
    left: set[str] = set()
    newest: dict[str, list[str]] = defaultdict(list)
    for task in _with_updates(federation):
        key = task.outcome.blob if task.outcome else None
        here = federation.roster.find(task.learner_id) is not None
        awaited = not here and federation.awaits_update_of(task.learner_id)
        if key not in held or key is None or not (here or awaited):
            continue
        used.add(key)
        if awaited:
            left.add(task.learner_id)
        if not (federation.postpones(task) and _is_open(federation, task)):
            newest[task.learner_id].append(key)
    for learner, keys in newest.items():
        known = store.lineage(learner)
        for key in keys:  # an older one that is noted again would be the newest
            if key not in known or key == keys[-1]:
                store.remember(learner, key)
    for key in held - used:
        store.drop(key)
    return left


def _with_updates(federation: Federation) -> list[Assignment]:
    tasks = [task for run in federation.runs.values() for task in run.tasks() if task.state == "accepted"]
    return sorted(tasks, key=lambda task: task.done_at or 0.0)


def _is_open(federation: Federation, task: Assignment) -> bool:
    """Whether no community model has this update yet."""
    run = federation.runs[task.run_id]
    return task in run.stream.arrived or any(task.id in one.train for one in run.open if one.model is None)
