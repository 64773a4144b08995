"""What an asynchronous run keeps beside its rounds: who trains, and whose update no community model has yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .job import Share
from .rounds import Assignment


@dataclass
class Stream:
    """Tasks by what became of them. A round of an asynchronous run is one community model and the updates in it."""

    training: dict[str, Assignment] = field(default_factory=dict)  # by learner id
    arrived: list[Assignment] = field(default_factory=list)  # accepted, oldest first
    ended: list[Assignment] = field(default_factory=list)  # failed or void
    resting: set[str] = field(default_factory=set)  # ids of learners that failed since the newest model was made
    newest: dict[str, Share] = field(default_factory=dict)  # by learner id, of those in a community model
    left: bool = False  # a learner left whose update is in the rule's state
    since: float = 0.0  # when the newest community model was made

    def tasks(self) -> Iterator[Assignment]:
        """Those that are in no round."""
        yield from self.ended
        yield from self.arrived
        yield from self.training.values()

    def deadlines(self) -> Iterator[float]:
        """When tasks are given up."""
        yield from (task.deadline for task in self.training.values())

    def sort(self) -> bool:
        """Move the tasks that are done out of `training`; whether there were any."""
        done = [(key, task) for key, task in self.training.items() if task.state != "offered"]
        for key, task in done:
            del self.training[key]
            if task.state == "accepted":
                self.arrived.append(task)
                continue
            self.ended.append(task)
            if task.state == "failed":
                self.resting.add(key)
        return bool(done)

    def forget(self, learner_id: str) -> None:
        """A learner left: its update counts no more in what is made of everybody's newest."""
        self.left = self.newest.pop(learner_id, None) is not None or self.left
        self.resting.discard(learner_id)
