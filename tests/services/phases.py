"""Every phase that a run can be in after an update of learner a in round 1 of a, b and c."""

from __future__ import annotations

from collections.abc import Callable

from services.federation import RunState
from tests.services.fleet import Fleet


def in_round_1() -> tuple[Fleet, RunState]:
    """Round 1 of learners a, b and c."""
    fleet = Fleet("a", "b", "c")
    return fleet, fleet.train()


def training(fleet: Fleet, run: RunState) -> None:
    """The others still train."""
    assert run.state == "training"


def aggregating(fleet: Fleet, run: RunState) -> None:
    """All have reported, nobody has begun to aggregate."""
    fleet.do("b")
    fleet.do("c")
    assert run.state == "aggregating"


def aggregation_taken(fleet: Fleet, run: RunState) -> None:
    """A thread is aggregating."""
    aggregating(fleet, run)
    assert fleet.federation.due()


def evaluating(fleet: Fleet, run: RunState) -> None:
    """The round's model is evaluated."""
    aggregating(fleet, run)
    fleet.aggregate()
    assert run.state == "evaluating"


def next_round(fleet: Fleet, run: RunState) -> None:
    """Round 2 is in training."""
    fleet.play()
    assert (run.state, run.round) == ("training", 2)


def next_round_aggregating(fleet: Fleet, run: RunState) -> None:
    """Round 2 has been reported by all."""
    next_round(fleet, run)
    fleet.do("a")
    aggregating(fleet, run)


def waiting(fleet: Fleet, run: RunState) -> None:
    """Everyone has left; the run waits for learners."""
    for name in "abc":
        fleet.leave(name)
    fleet.aggregate()
    assert run.state == "waiting"


def completed(fleet: Fleet, run: RunState) -> None:
    """The run has done its three rounds."""
    for _ in range(3):
        fleet.play()
    assert run.state == "completed"


def stopped(fleet: Fleet, run: RunState) -> None:
    """An operator stopped the run."""
    fleet.federation.stop(run.id, "enough", fleet.now)
    assert run.state == "stopped"


def failed(fleet: Fleet, run: RunState) -> None:
    """The aggregation failed, and with it the run."""
    aggregating(fleet, run)
    job = fleet.federation.due()
    assert job is not None
    fleet.federation.aggregation_failed(job, "no memory", fleet.now)
    assert run.state == "failed"


def left(fleet: Fleet, run: RunState) -> None:
    """The learner has left."""
    fleet.leave("a")


def lost(fleet: Fleet, run: RunState) -> None:
    """The learner has not been heard of for longer than its lease."""
    fleet.stay(40, "b", "c")
    assert fleet.federation.roster.get(fleet.ids["a"]).state == "lost"


def another_run(fleet: Fleet, run: RunState) -> None:
    """The run was stopped and another one trains."""
    stopped(fleet, run)
    assert fleet.train().state == "training"


def over(fleet: Fleet, run: RunState) -> None:
    """The controller is shutting down."""
    fleet.federation.shut_down(fleet.now)


Phase = Callable[[Fleet, RunState], None]
PHASES: list[Phase] = [
    training, aggregating, aggregation_taken, evaluating, next_round, next_round_aggregating, waiting, completed,
    stopped, failed, left, lost, another_run, over,
]  # fmt: skip
