"""The updates that an aggregation is given: those of a round, or of an asynchronous run what its rule takes."""

from __future__ import annotations

from dataclasses import replace

from .aggregation import State
from .aggregation.base import arrivals, keeps_previous
from .job import Aggregation, Share
from .rounds import Assignment, RoundState
from .run import RunState
from .scheduling import streams


def aggregation_of(run: RunState, one: RoundState, learners: int) -> Aggregation:
    """What is to be aggregated for a round that has closed, in a federation of so many learners."""
    if streams(run.plan.scheduler):
        shares, state = _of_stream(run, one)
    else:
        shares, state = [_share(task) for task in one.accepted], run.aggregator_state
    return Aggregation(run.id, one.number, one.parent, tuple(shares), run.plan, state, run.optimizer_state, learners)


def _share(task: Assignment) -> Share:
    outcome = task.outcome
    assert outcome is not None
    assert outcome.blob is not None
    assert outcome.factor is not None
    return Share(task.learner, outcome.blob, outcome.factor, outcome.metrics, outcome.metadata, outcome.transforms)


def _of_stream(run: RunState, one: RoundState) -> tuple[list[Share], State | None]:
    """The updates of the next community model of an asynchronous run, by learner's name, and the rule's state.

    These are the ones that have come, with what the rule keeps of their learners, or everybody's newest; that also for
    a rule that keeps them when a learner left, without a state: it begins anew.
    """
    stream, how = run.stream, arrivals(run.plan.aggregator)
    came: list[tuple[str, Share]] = []
    for task in one.train.values():
        new = _share(task)
        came.append((task.learner_id, replace(new, trained_from=task.model, staleness=one.number - task.round)))
    keeps = keeps_previous(run.plan.aggregator)
    anew = keeps and stream.left
    shares = [replace(new, previous=stream.newest.get(key)) if keeps else new for key, new in came]
    stream.newest.update(came)
    if anew or (how is not None and how.everybody):
        stream.left = False
        everybody = [replace(each, trained_from=None, staleness=0) for each in stream.newest.values()]
        return sorted(everybody, key=lambda each: each.learner), None if anew else run.aggregator_state
    return shares, run.aggregator_state
