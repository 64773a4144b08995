"""The federation's state as the contract shows it, and what a run waits for in words."""

from __future__ import annotations

import hashlib
import math

from .. import messages as m
from ..config import Encoding
from ..schedules import at_round
from ..scheduling import Wait, missing, streams, wait_text, waiting_text
from ..termination import cutoff_s
from . import asynchronous
from .health import health_of, reason_of
from .journal import Journal
from .offers import Offers
from .roster import Member
from .rounds import Assignment, ModelInfo
from .run import RunState
from .stages import Stages

HEARTBEATS_PER_LEASE = 3
NAMED_HERE = 5  # learners that are named while others are waited for


def learner_message(journal: Journal, offers: Offers, member: Member, now: float) -> m.Learner:
    """A learner that is in the federation."""
    task = offers.first(member.id)
    return m.Learner.model_construct(
        id=member.id,
        name=member.name,
        state=member.state,
        health=health_of(member),
        health_reason=reason_of(member),
        num_training_examples=member.request.num_training_examples,
        labels=member.request.labels,
        kinds=member.request.kinds,
        joined_at=journal.iso(member.joined_at),
        last_seen=journal.iso(member.heard_of(now)),
        last_seen_s=round(now - member.heard_of(now), 3),
        task=task.id if task else None,
        progress=member.progress if task else None,
    )


def task_message(run: RunState, task: Assignment, lease_s: float, now: float) -> m.Task:
    """A task; its urls are relative to `/v1/learners/<id>/task`."""
    config = run.config
    given, by_round, place = config.train, config.train_schedule, "result"
    if task.kind == "evaluate":
        given, by_round, place = config.evaluate, config.evaluate_schedule, "scores"
    return m.Task.model_construct(
        id=task.id,
        kind=task.kind,
        run_id=task.run_id,
        round=task.round,
        model=_reference(task.given) if task.given is not None else None,
        inputs={name: _reference(info) for name, info in task.inputs.items()},
        result=m.ResultTarget.model_construct(url=f"../../tasks/{task.id}/{place}"),
        config={
            "seed": seed_of(config.seed, task.round, task.learner),
            **at_round(given, by_round, task.round),
            "round": task.round,
            **_budget(task),
            **({"last_counted": run.controls.counted(task.learner_id)} if task.inputs else {}),
        },
        encoding=_update_encoding(config.encoding, task) if task.may_code else None,
        expires_in_s=max(0.0, round(task.deadline - now, 3)),
        heartbeat_s=round(lease_s / HEARTBEATS_PER_LEASE, 3),
    )


def seed_of(run_seed: int, round_number: int, learner: str) -> int:
    """Below 2³², for a learner's own draws in a task: the first four bytes, the highest first, of the sha256 of
    `<run_seed>/<round_number>/<learner's name>`."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}/{round_number}/{learner}".encode()).digest()[:4])


def _reference(info: ModelInfo) -> m.Reference:
    return m.Reference.model_construct(digest=info.digest, url=f"../../models/{info.digest}", size=info.size)


def _budget(task: Assignment) -> dict[str, int]:
    return {} if task.num_local_updates is None else {"num_local_updates": task.num_local_updates}


def _update_encoding(encoding: Encoding, task: Assignment) -> m.UpdateEncoding:
    ratio = encoding.topk_ratio if task.up == "topk" else None
    return m.UpdateEncoding.model_construct(up=task.up, topk_ratio=ratio)


def waiting_for(stages: Stages, run: RunState, now: float) -> str | None:
    """What a run waits for, of whom, and when the wait ends; None when it waits for nothing or has ended."""
    text = _wait(stages, run, now)
    over = run.started_at + cutoff_s(run.config.termination)
    return text if text is None or math.isinf(over) else f"{text}; the run ends in {max(0.0, over - now):.0f} s"


def _wait(stages: Stages, run: RunState, now: float) -> str | None:
    if run.state == "waiting":
        return _waits_to_begin(stages, run, now)
    if run.state == "initializing":
        task = run.initial[-1]
        left = max(0.0, task.deadline - now)
        return wait_text("initial weights", [stages.pending(task, now)], f"asks the next learner in {left:.0f} s")
    if run.state == "training" and streams(run.plan.scheduler):
        return asynchronous.waiting_text(run, lambda task: stages.pending(task, now), now)
    one = next((one for one in run.open if one.state == run.state), None) or next(iter(run.open), None)
    if one is None:
        return None
    if one.state == "training":
        view = stages.view(run, one, now)
        return waiting_text(view) if isinstance(run.plan.scheduler.decide(view), Wait) else None
    if one.state == "aggregating":
        return f"aggregating {len(one.accepted)} updates into model {one.number}"
    if one.asks_driver and one.driver_scores is None:
        left = max(0.0, one.evaluation_deadline - now)
        return f"waiting for the driver's scores of model {one.number}; goes on in {left:.0f} s"
    pending = [stages.pending(task, now) for task in one.evaluate.values() if task.state == "offered"]
    left = max(0.0, one.evaluation_deadline - now)
    what = f"{len(pending)} more of {len(one.evaluate)} evaluations of model {one.number}"
    return wait_text(what, pending, f"goes on in {left:.0f} s")


def _waits_to_begin(stages: Stages, run: RunState, now: float) -> str:
    if run.hold == "operator":
        return f"waiting for an operator to start the next round: POST /v1/runs/{run.id}/rounds"
    here, wanted = stages.here(), stages.wanted(run)
    names = sorted(one.name for one in here)
    named = f"{', '.join(names[:NAMED_HERE]) or 'nobody'}{' …' if names[NAMED_HERE:] else ''}"
    silent = missing(stages.lost(now))
    aside = f" put aside: {'; '.join(stages.aside())};" if stages.aside() else ""
    left = max(0.0, run.wait_deadline - now)
    return (
        f"waiting for {wanted - len(here)} more of {wanted} learners; here: {named};"
        f"{f' not heard of: {silent};' if silent else ''}{aside} gives up in {left:.0f} s"
    )
