"""The updates that an aggregation is given: those of a round, or of an asynchronous run what its rule takes.

This is where scaling factors are capped: what a share counts follows from the factors of all that it stands beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .. import messages as m
from ..aggregation import State, arrivals, keeps_previous
from ..scaling import cap_factors
from ..scheduling import streams
from .job import Aggregation, Share
from .journal import Journal
from .rounds import NO_STATES, Assignment, RoundState
from .run import RunState


def aggregation_of(run: RunState, one: RoundState) -> Aggregation:
    """What is to be aggregated for a round whose updates are complete; the round notes which factors are capped."""
    beside: Mapping[str, float] = {}
    if streams(run.plan.scheduler):
        shares, beside, state = _of_stream(run, one)
    else:
        shares, state = [_share(task) for task in one.accepted], run.aggregator_state
    shares = _capped(shares, beside, one)
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
        beside=beside,
        shift=run.shift_of(one),
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
        reported=outcome.factor,
    )


def _capped(shares: Iterable[Share], beside: Mapping[str, float], one: RoundState) -> list[Share]:
    """The shares with what they count."""
    given = [replace(share, factor=share.reported) for share in shares]
    counts = cap_factors([share.factor for share in given], one.factor_cap, beside.values())
    capped = [replace(share, factor=count) for share, count in zip(given, counts, strict=True)]
    one.capped = {
        share.learner: m.Capped(factor=share.reported, counts=share.factor)
        for share in capped
        if share.factor != share.reported
    }
    return capped


def tell_capped(journal: Journal, run: RunState, one: RoundState, now: float) -> None:
    """Tell of the learners whose factors count as less than they are."""
    for learner, capped in one.capped.items():
        text = (
            f"round {one.number}: {learner}'s factor {capped.factor:g} counts as {capped.counts:g}: it is more than"
            f" {one.factor_cap:g} times the others' median (schedule.factor_cap)"
        )
        told = capped.model_dump()
        journal.emit(now, "factor-capped", text, run=run.id, round_number=one.number, learner=learner, data=told)


def _newest(run: RunState, one: RoundState) -> list[tuple[str, Share]]:
    """The updates of which a community model of an asynchronous run is made, each with the id of its learner."""
    return [
        (
            task.learner_id,
            replace(
                share,
                factor=one.counts(share.learner, share.reported),
                trained_from=task.model,
                staleness=run.made(task.round, one.number),
            ),
        )
        for task, share in ((task, _share(task)) for task in one.train.values())
    ]


def take_newest(run: RunState, one: RoundState) -> None:
    """The updates of a community model become their learners' newest, by id, each with what it counts in the rule's
    state; where the rule began anew, those of all others count anew, too."""
    known = run.stream.newest
    known.update(_newest(run, one))
    if one.anew:
        for key, share in known.items():
            known[key] = replace(share, factor=one.counts(share.learner, share.reported))


def _of_stream(run: RunState, one: RoundState) -> tuple[list[Share], dict[str, float], State | None]:
    """The updates of the next community model of an asynchronous run, by learner's name, the factors of others that are
    in the rule's state, and that state.

    The updates are the ones that have come, with what the rule keeps of their learners, or everybody's newest; that
    also for a rule that keeps them when a learner left, without a state: it begins anew.
    """
    stream, how, came = run.stream, arrivals(run.plan.aggregator), dict(_newest(run, one))
    keeps = keeps_previous(run.plan.aggregator)
    one.anew = anew = keeps and stream.left
    if anew or (how is not None and how.everybody):
        stream.left = False
        everybody = [replace(each, trained_from=None, staleness=0) for each in {**stream.newest, **came}.values()]
        return sorted(everybody, key=lambda each: each.learner), {}, None if anew else run.aggregator_state
    shares = [replace(new, previous=stream.newest.get(key)) if keeps else new for key, new in _newest(run, one)]
    others = [each for key, each in stream.newest.items() if keeps and key not in came]
    return shares, {each.learner: each.reported for each in others}, run.aggregator_state
