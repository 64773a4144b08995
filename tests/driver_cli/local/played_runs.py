"""Runs whose folder is kept for `metis verify`: a controller in this process, learners that drift."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from controller_api.settings import Settings
from driver_cli.local.verification import Verified, verified, written
from learner_agent import Learner
from learner_agent.control import Control
from services import ModelStoreConfig
from tests.conftest import InProcess, in_process, until
from tests.learner_agent.agents import Line, agent_of, ended, running

LEARNERS = 4
NUMBERS = 400  # float32 numbers of the first tensor: worth coding
RATE = 0.1
NOTHING: Mapping[int, int] = {}


class Drifts(Learner):
    """Adds noise of its own; a step of gradient descent, so that it can do SCAFFOLD too."""

    names = ("a", "b")

    def __init__(self, index: int, rows: int | None = None) -> None:
        self._noise, self._rows = np.random.default_rng(index), 10 + index if rows is None else rows
        self._control = Control()

    def get_weights(self) -> list[Any]:
        """Noise."""
        return self._gradient()

    def set_weights(self, weights: list[Any]) -> None:
        """Nothing is kept."""

    def train(self, weights: list[Any], config: dict[str, Any]) -> Any:
        """One step."""
        before = float(abs(weights[0]).sum())
        corrections: list[Any] = self._control.begin(weights, config) or [0.0 for _ in weights]
        for array, gradient, correction in zip(weights, self._gradient(), corrections, strict=True):
            array -= (RATE * (gradient + correction)).astype(np.float32)
        told = {"num_training_examples": self._rows, **self._control.end(weights, 1, RATE)}
        return weights, {"loss_before_training": before}, told

    def evaluate(self, weights: list[Any], config: dict[str, Any]) -> Any:
        """A score of the weights."""
        return {"loss": float(abs(weights[0]).sum())}

    def _gradient(self) -> list[Any]:
        return [self._noise.standard_normal(NUMBERS, np.float32), self._noise.standard_normal((2, 3), np.float32)]


def played(
    folder: Path,
    lineage: int,
    rounds: int = 4,
    learners: int = LEARNERS,
    examples: Mapping[int, int] = NOTHING,
    **config: Any,
) -> Path:
    """A run to its end by a controller that keeps so many updates of each learner; returns a copy of its folder, as it
    was while the controller was there. `examples` are what learners say instead of 10, 11, …"""
    given = {"termination": {"federation_rounds": rounds}, **config}
    return asyncio.run(_played(folder, lineage, learners, examples, given))


async def _played(
    folder: Path, lineage: int, learners: int, examples: Mapping[int, int], config: dict[str, Any]
) -> Path:
    given = Settings(data_dir=folder / "data", log_level="error")
    async with in_process(given, store=ModelStoreConfig("OnDisk", lineage)) as controller:
        agents = [agent_of(Drifts(i, examples.get(i)), Line(controller.app), f"learner-{i}") for i in range(learners)]
        async with running(*agents):
            await controller.client().start_run({"min_learners": learners, **config})
            run = await ended(controller)
            assert run.state == "completed", run.reason
            await _quiet(controller, folder / "data" / "models")
            shutil.copytree(folder / "data", folder / "copy")
    return folder / "copy"


async def _quiet(controller: InProcess, folder: Path) -> None:
    """Until nothing is dropped any more."""
    seen: list[set[str]] = []

    async def still() -> bool:
        await controller.http.get("/v1/federation")
        seen.append(set(os.listdir(folder)))
        return len(seen) > 10 and seen[-10:] == [seen[-1]] * 10

    await until(still)


def verdicts(folder: Path, number: int | None = None) -> list[str]:
    """What is said of each round of the only run; nothing in the folder is touched."""
    before = print_of(folder)
    found = rounds(folder, number)
    assert print_of(folder) == before
    return [one.verdict.text for one in found]


def rounds(folder: Path, number: int | None = None) -> list[Verified]:
    """The same, with all that is told."""
    return list(verified(folder, written(folder, "latest"), number))


def print_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file with its time and what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(one): (one.stat().st_mtime_ns, hashlib.sha256(one.read_bytes()).hexdigest()) for one in files}


def change_a_byte(path: Path, at: int = 200) -> None:
    """Of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
