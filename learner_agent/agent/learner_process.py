"""A learner in a process of its own, in which it lives until the agent ends; this side calls it over two pipes.

The other side is learner_process_child.py. Weights cross as the documents that go over HTTP (pipe.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from services import messages as m
from services.errors import FederationError, TaskVoid
from services.weights import Buffer, Document, wire

from .pipe import receive, send
from .task_report import LearnerFailed, progress
from .tasks import Frame

CHILD = f"{__package__}.learner_process_child"
ENDING_S = 2.0  # how long the process may take to end after SIGTERM


class LearnerProcess:
    """Work (see tasks.py) of a learner in a process of its own. One that died is started anew for the next task."""

    def __init__(self, spec: str, local_file: Path | None = None) -> None:
        """Start it; `local_file` as for LearnerAtWork. Raises ChildProcessError, and LearnerFailed when `spec`,
        `module:factory`, makes no learner."""
        self._arguments = [spec] if local_file is None else [spec, str(local_file)]
        self._child = self._started()

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        return self._child.pid

    def initial(self) -> list[Buffer]:
        """See Work.initial."""
        return [self._call({"call": "initial"})[1]]

    def train(self, model: Document, task: m.Task, frame: Frame = wire.encode) -> list[Buffer]:
        """See Work.train."""
        body = self._call({"call": "train", "task": task.model_dump(mode="json")}, model)[1]
        if frame is wire.encode:
            return [body]
        update = wire.decode(body)
        return frame(update.tensors, update.metrics, update.metadata, update.extra)

    def evaluate(self, model: Document, task: m.Task) -> m.EvaluationResult:
        """See Work.evaluate."""
        head, _ = self._call({"call": "evaluate", "task": task.model_dump(mode="json")}, model)
        return m.EvaluationResult.model_validate(head["evaluation"])

    def close(self) -> None:
        """End the process, and those that it started, whatever they are at."""
        self._child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(ENDING_S)
        with contextlib.suppress(OSError):  # nobody is left
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", CHILD, *self._arguments]
        # A session of its own: Ctrl-C reaches the agent alone, which leaves the federation and then ends the child.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._answer(child)
        return child

    def _call(self, head: dict[str, Any], model: Document | None = None) -> tuple[dict[str, Any], bytearray]:
        if self._child.poll() is not None:
            self._child = self._started()
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):  # it died: the answer says so
            send(self._child.stdin, head, wire.encode(model.tensors, extra=model.extra) if model else ())
        return self._answer(self._child)

    def _answer(self, child: subprocess.Popen[bytes]) -> tuple[dict[str, Any], bytearray]:
        """What the child answers. Meanwhile passes on its progress, and to it that the task is void."""
        assert child.stdin
        assert child.stdout
        told = False
        while True:
            try:
                head, body = receive(child.stdout)
            except EOFError:
                raise ChildProcessError(f"the learner's process ended with status {child.wait()}") from None
            if "failed" in head:
                raise LearnerFailed(*head["failed"])
            if "error" in head:
                raise FederationError.by_name.get(head["error"], FederationError)(head["detail"])
            if "progress" not in head:
                return head, body
            try:
                progress(**head["progress"])
            except TaskVoid as error:
                if not told:
                    told = True
                    with contextlib.suppress(BrokenPipeError):
                        send(child.stdin, {"void": error.detail})
