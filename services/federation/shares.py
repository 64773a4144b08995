"""The updates that an aggregation is given: those of a round, or of an asynchronous run what its rule takes."""

from __future__ import annotations

from dataclasses import replace

from ..aggregation import State, arrivals, keeps_previous
from ..scheduling import streams
from .job import Aggregation, Share
from .rounds import NO_STATES, Assignment, RoundState
from .run import RunState


def aggregation_of(run: RunState, one: RoundState) -> Aggregation:
    """What is to be aggregated for a round whose updates are complete."""
    if streams(run.plan.scheduler):
        shares, state = _of_stream(run, one)
    else:
        shares, state = [_share(task) for task in one.accepted], run.aggregator_state
    made = [before.states for before in run.rounds if before.model]
    rule, optimizer = made[-1] if made else NO_STATES
    return Aggregation(
        run_id=run.id,
        round=one.number,
        parent=one.parent,
        shares=tuple(shares),
        plan=run.plan,
        aggregator_state=state,
        optimizer_state=run.optimizer_state,
        learners=one.learners,
        stored=(None if one.anew else rule, optimizer),
    )


def _share(task: Assignment) -> Share:
    outcome = task.outcome
    assert outcome is not None
    assert outcome.blob is not None
    assert outcome.factor is not None
    return Share(
        learner=task.learner,
        blob=outcome.blob,
        factor=outcome.factor,
        metrics=outcome.metrics,
        metadata=outcome.metadata,
        transforms=outcome.transforms,
        fingerprint=outcome.stored or outcome.fingerprint,
    )


def newest(one: RoundState) -> list[tuple[str, Share]]:
    """The updates of which a community model of an asynchronous run is made, each with the id of its learner."""
    tasks = one.train.values()
    return [
        (task.learner_id, replace(_share(task), trained_from=task.model, staleness=one.number - task.round))
        for task in tasks
    ]


def _of_stream(run: RunState, one: RoundState) -> tuple[list[Share], State | None]:
    """The updates of the next community model of an asynchronous run, by learner's name, and the rule's state.

    These are the ones that have come, with what the rule keeps of their learners, or everybody's newest; that also for
    a rule that keeps them when a learner left, without a state: it begins anew.
    """
    stream, how, came = run.stream, arrivals(run.plan.aggregator), newest(one)
    keeps = keeps_previous(run.plan.aggregator)
    one.anew = anew = keeps and stream.left
    shares = [replace(new, previous=stream.newest.get(key)) if keeps else new for key, new in came]
    stream.newest.update(came)
    if anew or (how is not None and how.everybody):
        stream.left = False
        everybody = [replace(each, trained_from=None, staleness=0) for each in stream.newest.values()]
        return sorted(everybody, key=lambda each: each.learner), None if anew else run.aggregator_state
    return shares, run.aggregator_state
