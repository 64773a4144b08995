"""What a train task names beside its model: fetched when it is new, handed on with what a learner must know of it."""

from __future__ import annotations

from services import messages as m
from services.rest import Client
from services.weights import Tensor, wire

from .kept_tensors import LAST_COUNTED


class Inputs:
    """The inputs of one learner's train tasks. Those of the newest task are held, as documents by digest."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._held: dict[str, memoryview] = {}
        self._taken: tuple[str, int] | None = None  # run and round of this learner's last update that was taken

    async def of(self, task: m.Task) -> tuple[m.Task, dict[str, tuple[Tensor, ...]]]:
        """The inputs by name, and the task as the learner is to see it.

        Its config then has `run_id`, and says in `last_update_taken` whether the last update that this learner made in
        the run was taken, and counts: what it keeps from round to round depends on that.
        """
        last, self._taken = self._taken, None
        taken = last is not None and last == (task.run_id, task.config.get(LAST_COUNTED, last[1]))
        named = {reference.digest: reference for reference in task.inputs.values()}
        self._held = {
            digest: self._held[digest] if digest in self._held else await self._client.model(reference)
            for digest, reference in named.items()
        }
        inputs = {name: tuple(wire.decode(self._held[one.digest]).tensors) for name, one in task.inputs.items()}
        if not inputs:
            return task, {}
        told = {**task.config, "run_id": task.run_id, "last_update_taken": taken}
        return task.model_copy(update={"config": told}), inputs

    def taken(self, task: m.Task) -> None:
        """The result of a task was taken."""
        if task.kind == "train":
            self._taken = task.run_id, task.round
