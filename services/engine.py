"""One aggregation, from stored updates to a stored model: a pure function of the store's views and explicit state.

The new model is written where the store wants it, so that it may be larger than memory. It runs in a thread. An engine
that spreads over machines replaces this call and the store, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import wire
from .aggregation import State, View
from .blocks import in_threads
from .checks import check_finite
from .encoding import encode_model
from .errors import AggregationFailed, NonFiniteUpdate
from .federation import Aggregation
from .layout import Layout, layout_of
from .rounds import ModelInfo
from .store import Draft, ModelStore
from .wire import PLAIN, Coded, Tensor

SMALL = 1 << 21  # bytes of a model that threads would not hasten


@dataclass(frozen=True)
class Made:
    """A new community model, stored; its layout, and the states for the next call."""

    model: ModelInfo
    layout: Layout
    states: tuple[State | None, State | None]
    spent_s: float


def aggregate(job: Aggregation, store: ModelStore, clock: Callable[[], float]) -> Made:
    """Combine the updates of `job` and store the model; raises AggregationFailed or what the store raises.

    `clock` gives the seconds by which the work is timed.
    """
    started = clock()
    document = store.get(job.parent.digest)
    layout = layout_of(document)
    parent = layout.read(document)
    before = [tensor.array for tensor in parent]
    trainable = [tensor.trainable for tensor in parent]
    views = [
        View(
            learner=share.learner,
            arrays=[tensor.array for tensor in layout.read(store.get(share.blob))],
            parent=before,
            trainable=trainable,
            metrics=share.metrics,
            metadata=share.metadata,
        )
        for share in job.shares
    ]
    factors = [share.factor for share in job.shares]
    with store.draft(layout.size_of(parent)) as draft:
        room = layout.room(parent, draft.buffer)
        aggregate, aggregator_state = job.plan.aggregator.aggregate(views, factors, job.aggregator_state, room)
        arrays, optimizer_state = job.plan.optimizer.step(before, aggregate, trainable, job.optimizer_state)
        tensors = [Tensor(old.name, array, old.trainable) for old, array in zip(parent, arrays, strict=True)]
        layout.spec.check(tensors)
        for target, array in zip(room, arrays, strict=True):
            if target is not array:  # a rule or an optimizer that makes arrays of its own
                np.copyto(target, array)
        model = _finished(draft, tensors)
        draft.keep(model.digest)
        model = replace(model, coded=store_coded(store, tensors, job.plan.encoding.down))
    return Made(model, layout_in(store, model.digest), (aggregator_state, optimizer_state), clock() - started)


def _finished(draft: Draft, tensors: Sequence[Tensor]) -> ModelInfo:
    """What the draft holds, once it is found to be finite; raises AggregationFailed."""
    digests: list[str] = []
    steps: list[Callable[[], None]] = [
        lambda: digests.append(wire.digest([draft.buffer])),
        draft.finish,
        lambda: check_finite(tensors),
    ]
    try:
        if len(draft.buffer) < SMALL:
            for step in steps:
                step()
        else:  # together: each takes its time
            for _ in in_threads(lambda step: step(), steps):
                pass
    except NonFiniteUpdate as error:
        raise AggregationFailed(f"the aggregate is not finite: {error.detail}") from error
    return ModelInfo(digests[0], len(draft.buffer))


def layout_in(store: ModelStore, digest: str) -> Layout:
    """The layout of a stored model."""
    return layout_of(store.get(digest))


def store_model(store: ModelStore, tensors: Sequence[Tensor], down: str = PLAIN) -> ModelInfo:
    """Store the weights document of `tensors` under its digest, and one in the encoding `down` that stands for it."""
    return replace(_store(store, tensors), coded=store_coded(store, tensors, down))


def store_coded(store: ModelStore, tensors: Sequence[Tensor], down: str) -> ModelInfo | None:
    """Store what stands for a model in this encoding; None when none of its tensors is worth coding."""
    coded = encode_model(tensors, down) if down != PLAIN else ()
    return _store(store, coded) if any(isinstance(one, Coded) for one in coded) else None


def _store(store: ModelStore, tensors: Sequence[Tensor | Coded]) -> ModelInfo:
    parts = wire.encode(tensors)
    model = ModelInfo(wire.digest(parts), wire.length(parts))
    store.publish(model.digest, parts)
    return model
