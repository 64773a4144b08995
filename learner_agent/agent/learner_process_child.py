"""The process in which a learner lives: `python -m learner_agent.agent.learner_process_child module:factory [FILE]`.

The agent's side is learner_process.py. Standard input and output are the pipes to the agent; what the learner prints
goes to standard error.
"""

from __future__ import annotations

import io
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from services import messages as m
from services.errors import FederationError
from services.process import end_children
from services.weights import Buffer, wire

from .factory import make_learner
from .pipe import receive, send
from .task_report import LearnerFailed, TaskReport, current, reason_of, told
from .tasks import LearnerAtWork

PROGRESS_EVERY_S = 0.1

Message = tuple[dict[str, Any], bytearray]


class PipedTaskReport(TaskReport):
    """Passes on how far the task is, a few times a second."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__()
        self._pipe, self._sent = pipe, 0.0

    def tell(self, progress: m.Progress) -> None:
        """See TaskReport.tell."""
        super().tell(progress)
        if time.monotonic() - self._sent >= PROGRESS_EVERY_S:
            send(self._pipe, {"progress": progress.model_dump(exclude_none=True)})
            self._sent = time.monotonic()


class Child:
    """Answers calls, one after the other, in the main thread; another thread listens meanwhile."""

    def __init__(self, calls: IO[bytes], answers: IO[bytes]) -> None:
        self._pipe, self._answers = calls, answers
        self._calls: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._report = TaskReport()  # of the present call

    def serve(self, spec: str, local_file: Path | None = None) -> None:
        """Make the learner and answer calls until the agent is gone. A learner that cannot be made is told of."""
        try:
            work = LearnerAtWork(make_learner(spec), local_file)
        except Exception as error:
            send(self._answers, {"failed": [str(error) or repr(error)]})
            return
        send(self._answers, {"ready": True})
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            head, body = self._calls.get()
            self._report = PipedTaskReport(self._answers)
            current.set(self._report)
            try:
                send(self._answers, *told(_done, work, head, body))
            except FederationError as error:
                send(self._answers, {"error": error.name, "detail": error.detail})
            except LearnerFailed as error:
                send(self._answers, {"failed": reason_of(error)})

    def _listen(self) -> None:
        """Take in calls, and the word that the present one is void."""
        while True:
            try:
                head, body = receive(self._pipe)
            except EOFError:
                end_children()  # the agent is gone, and the learner may be in the midst of training
                os._exit(0)
            if "void" in head:
                self._report.void = head["void"]
            else:
                self._calls.put((head, body))


def _done(work: LearnerAtWork, head: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], Sequence[Buffer]]:
    if head["call"] == "initial":
        return {}, work.initial()
    model = wire.decode(body, writable=head["call"] == "train")
    task = m.Task.model_validate(head["task"])
    if head["call"] == "train":
        return {}, work.train(model, task)
    return {"evaluation": work.evaluate(model, task).model_dump()}, ()


def main() -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    Child(calls, answers).serve(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else None)


if __name__ == "__main__":
    main()
