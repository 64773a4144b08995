"""Updates in the form that their task asks for: what is trained, against the model as it was given.

Sparse updates leave something out, which is sent later: it is kept here as long as the agent lives and the run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services import messages as m
from services.encoding import Sender, own
from services.weights import Buffer, Tensor, wire

from .tasks import Extra, Work


class UpdateEncoder:
    """The updates of one learner, from run to run."""

    def __init__(self) -> None:
        self._run_id: str | None = None
        self._sender: Sender | None = None
        self._task_id: str | None = None  # whose update was made last

    def train(self, work: Work, model: Buffer, task: m.Task, inputs: dict[str, tuple[Tensor, ...]]) -> list[Buffer]:
        """Work.train from a model's document, which is left as it is, and the task's inputs; blocks."""
        given, sender = wire.parse(model), self._sender_of(task)

        def frame(tensors: Sequence[Tensor], metrics: m.Metrics, metadata: m.Scalars, extra: Extra) -> list[Buffer]:
            update = sender.code(tensors, given.tensors)
            self._task_id = task.id
            return wire.encode(update, metrics, metadata, extra)

        return work.train(replace(own(given), extra=inputs), task, frame)

    def taken(self, task: m.Task) -> None:
        """The result of a task was taken."""
        if self._sender is not None and task.id == self._task_id:
            self._sender.taken()

    def _sender_of(self, task: m.Task) -> Sender:
        assert task.encoding is not None
        if self._sender is None or self._run_id != task.run_id:
            self._sender = Sender(task.encoding.up, task.encoding.topk_ratio)
            self._run_id = task.run_id
        return self._sender
