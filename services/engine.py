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
from .aggregation.base import Array, is_elementwise
from .blocks import in_threads
from .checks import Spec, check_finite
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
    updates = [store.get(share.blob) for share in job.shares]
    layout = layout_of(document)
    parent = layout.read(document)
    with store.draft(layout.size_of(parent)) as draft:
        tensors = layout.room(parent, draft.buffer)
        if is_elementwise(job.plan.aggregator) and layout.are_values([document, *updates]):  # much less to do for each
            values = [layout.values(one) for one in (document, *updates)]
            aggregator_state = _combine(job, values[0], values[1:], layout.values(draft.buffer, writable=True))
            layout.frame(draft.buffer)
        else:
            aggregator_state = _combine(job, parent, [layout.read(update) for update in updates], tensors)
        optimizer_state = _move(job, parent, tensors)
        model = _finished(draft, tensors)
        draft.keep(model.digest)
        model = replace(model, coded=store_coded(store, tensors, job.plan.encoding.down))
    return Made(model, layout_in(store, model.digest), (aggregator_state, optimizer_state), clock() - started)


def _combine(
    job: Aggregation, parent: Sequence[Tensor], updates: Sequence[Sequence[Tensor]], room: Sequence[Tensor]
) -> State | None:
    """Put into `room` what the rule makes of the updates; returns its state."""
    before, trainable = _arrays(parent), [tensor.trainable for tensor in parent]
    views = [
        View(share.learner, _arrays(update), before, trainable, share.metrics, share.metadata)
        for share, update in zip(job.shares, updates, strict=True)
    ]
    factors = [share.factor for share in job.shares]
    made, state = job.plan.aggregator.aggregate(views, factors, job.aggregator_state, _arrays(room))
    _put(made, room)
    return state


def _move(job: Aggregation, parent: Sequence[Tensor], room: Sequence[Tensor]) -> State | None:
    """Make of the aggregate in `room` the next model; returns the optimizer's state."""
    trainable = [tensor.trainable for tensor in parent]
    made, state = job.plan.optimizer.step(_arrays(parent), _arrays(room), trainable, job.optimizer_state)
    _put(made, room)
    return state


def _arrays(tensors: Sequence[Tensor]) -> list[Array]:
    return [tensor.array for tensor in tensors]


def _put(arrays: Sequence[Array], room: Sequence[Tensor]) -> None:
    """Copy what a rule or an optimizer made in arrays of its own; raises ShapeMismatch for other tensors than these."""
    if all(array is tensor.array for array, tensor in zip(arrays, room, strict=True)):
        return
    Spec.of(room).check([tensor._replace(array=array) for array, tensor in zip(arrays, room, strict=True)])
    for array, tensor in zip(arrays, room, strict=True):
        np.copyto(tensor.array, array)


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
