"""One aggregation, from stored updates to a stored model: a pure function of the store's views and explicit state.

The new model is written where the store wants it, so that it may be larger than memory. It runs in a thread. An engine
that spreads over machines replaces this call and the store, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..aggregation import State, View, is_elementwise
from ..algorithms import add_differences, own_key, zeros
from ..encoding import encode_model
from ..errors import AggregationFailed, NonFiniteUpdate
from ..federation import Aggregation, Held, ModelInfo, Share, Shift, States
from ..store import Draft, ModelStore
from ..weights import PLAIN, Array, Coded, Layout, Spec, Tensor, in_threads, layout_of, wire
from .rule_state import store_states

Given = tuple[memoryview, memoryview, memoryview | None]  # an update, what it was trained from, the learner's last
Read = Callable[[memoryview], Sequence[Tensor]]
SMALL = 1 << 21  # bytes of a model that threads would not hasten


@dataclass(frozen=True)
class Made:
    """A new community model, stored; its layout, and the states for the next call."""

    model: ModelInfo
    layout: Layout
    inputs: tuple[tuple[ModelInfo, Layout], ...]  # that go with it
    states: tuple[State | None, State | None]
    stored: States  # where the states are
    spent_s: float
    ordinary: bool  # all numbers of the model are of an ordinary size: see check_finite


def aggregate(job: Aggregation, store: ModelStore, clock: Callable[[], float]) -> Made:
    """Combine the updates of `job` and store the model; raises AggregationFailed or what the store raises.

    `clock` gives the seconds by which the work is timed.
    """
    started = clock()
    document = store.get(job.parent.digest)
    given = [_given(share, document, store) for share in job.shares]
    layout = layout_of(document)
    parent = layout.read(document)
    with store.draft(layout.size_of(parent)) as draft:
        tensors = layout.room(parent, draft.buffer)
        every = [document, *(one for each in given for one in each if one is not None)]
        if is_elementwise(job.plan.aggregator) and layout.are_values(every):  # much less to do for each
            room = layout.values(draft.buffer, writable=True)
            aggregator_state = _combine(job, layout.values, document, given, room)
            layout.frame(draft.buffer)
        else:
            aggregator_state = _combine(job, layout.read, document, given, tensors)
        optimizer_state = _move(job, parent, tensors)
        model, ordinary = _finished(draft, layout)
        inputs = _next_inputs(job, [update for update, *_ in given], store)
        draft.keep(model.digest)
        model = replace(model, coded=store_coded(store, tensors, job.plan.encoding.down), inputs=inputs)
    beside = tuple([(one, layout_in(store, one.digest)) for one in inputs.values()])
    states = (aggregator_state, optimizer_state)
    stored = store_states(store, job, states)
    return Made(model, layout_in(store, model.digest), beside, states, stored, clock() - started, ordinary)


def _given(share: Share, parent: memoryview, store: ModelStore) -> Given:
    update = store.get(share.blob)
    if share.trained_from is not None:
        parent = store.get(share.trained_from.digest)
    return update, parent, store.get(share.previous.blob) if share.previous is not None else None


def _combine(
    job: Aggregation, read: Read, document: memoryview, given: Sequence[Given], room: Sequence[Tensor]
) -> State | None:
    """Put into `room` what the rule makes of the updates; returns its state."""
    tensors = read(document)
    current, trainable = _arrays(tensors), [tensor.trainable for tensor in tensors]
    views = [
        View(
            learner=share.learner,
            arrays=_arrays(read(update)),
            parent=current if parent is document else _arrays(read(parent)),
            trainable=trainable,
            metrics=share.metrics,
            metadata=share.metadata,
            staleness=share.staleness,
            current=current,
            previous=None if previous is None else _arrays(read(previous)),
            previous_factor=0.0 if share.previous is None else share.previous.factor,
        )
        for share, (update, parent, previous) in zip(job.shares, given, strict=True)
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


def _next_inputs(job: Aggregation, updates: Sequence[memoryview], store: ModelStore) -> dict[str, ModelInfo]:
    """Store what goes with the next model: what went with this one, moved by what the updates bring and by who came and
    went; and what each learner holds of it from now on."""
    if not job.parent.inputs:
        return {}
    made, sent = {}, [wire.parse(update).extra for update in updates]
    for name, info in job.parent.inputs.items():
        document = store.get(info.digest)
        layout = layout_of(document)
        current = layout.read(document)
        brought = [(share, _arrays(each[name])) for share, each in zip(job.shares, sent, strict=True)]
        everybody = float(max(job.learners, len(brought)))
        before, after = everybody, everybody
        terms: list[tuple[Sequence[Array], float]] = [(arrays, 1.0) for _, arrays in brought]
        if (shift := job.shift) is not None:
            before, after, terms = shift.before, shift.after, _moved(name, brought, shift, store, layout)
        if not after:  # nobody counts
            before = after = 1.0
        with store.draft(layout.size_of(current)) as draft:
            room = layout.room(current, draft.buffer)
            add_differences(_arrays(current), terms, before, after, _arrays(room))
            made[name], _ = _finished(draft, layout)
            draft.keep(made[name].digest)
    return made


def _moved(
    name: str, brought: Sequence[tuple[Share, Sequence[Array]]], shift: Shift, store: ModelStore, layout: Layout
) -> list[tuple[Sequence[Array], float]]:
    """What the group of this name changes by, with weights. Stores what each learner of the round holds from now on."""
    terms: list[tuple[Sequence[Array], float]] = []
    for share, difference in brought:
        weight, before = shift.weights[share.learner], shift.members.get(share.learner)
        own = _held(name, before, store, layout) if before and before.blob else None
        terms.append((difference, weight))
        if own is not None and before is not None and before.weight != weight:
            terms.append((own, weight - before.weight))
        tensors: Sequence[Tensor] = wire.parse(store.get(share.blob)).extra[name]
        if own is not None:
            tensors = [one._replace(array=_sum(one.array, array)) for one, array in zip(tensors, own, strict=True)]
        store.put(own_key(name, share.blob), wire.encode(tensors))
    others = [*((one, 1.0) for one in shift.came), *((one, -1.0) for one in shift.went)]
    return terms + [(_held(name, one, store, layout), sign * one.weight) for one, sign in others]


def _held(name: str, held: Held, store: ModelStore, layout: Layout) -> list[Array]:
    return _arrays(layout.read(store.get(own_key(name, held.blob))))


def _sum(difference: Array, own: Array) -> Array:
    return (own.astype(np.float64) + difference.astype(np.float64)).astype(own.dtype)


def _arrays(tensors: Sequence[Tensor]) -> list[Array]:
    return [tensor.array for tensor in tensors]


def _put(arrays: Sequence[Array], room: Sequence[Tensor]) -> None:
    """Copy what a rule or an optimizer made in arrays of its own; raises ShapeMismatch for other tensors than these."""
    if all(array is tensor.array for array, tensor in zip(arrays, room, strict=True)):
        return
    Spec.of(room).check([tensor._replace(array=array) for array, tensor in zip(arrays, room, strict=True)])
    for array, tensor in zip(arrays, room, strict=True):
        np.copyto(tensor.array, array)


def _finished(draft: Draft, layout: Layout) -> tuple[ModelInfo, bool]:
    """What the draft holds, and whether its numbers are of an ordinary size; raises AggregationFailed for what is not
    finite."""
    digests: list[str] = []
    ordinary: list[bool] = []
    steps: list[Callable[[], object]] = [
        lambda: digests.append(wire.digest([draft.buffer])),
        draft.finish,
        lambda: ordinary.append(layout.check_finite(draft.buffer)),
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
    return ModelInfo(digests[0], len(draft.buffer)), ordinary[0]


def layout_in(store: ModelStore, digest: str) -> Layout:
    """The layout of a stored model."""
    return layout_of(store.get(digest))


def store_model(
    store: ModelStore, tensors: Sequence[Tensor], down: str = PLAIN, extras: Sequence[str] = ()
) -> ModelInfo:
    """Store the weights document of `tensors` under its digest, and what `begin_with` adds to it."""
    return begin_with(store, _store(store, tensors), tensors, down, extras)


def begin_with(
    store: ModelStore, model: ModelInfo, tensors: Sequence[Tensor], down: str, extras: Sequence[str]
) -> ModelInfo:
    """A stored model for a run to begin with: store one in the encoding `down` that stands for it, and its inputs."""
    inputs = {name: _store(store, zeros(tensors)) for name in extras}
    return replace(model, coded=store_coded(store, tensors, down), inputs=inputs)


def store_coded(store: ModelStore, tensors: Sequence[Tensor], down: str) -> ModelInfo | None:
    """Store what stands for a model in this encoding; None when none of its tensors is worth coding."""
    coded = encode_model(tensors, down) if down != PLAIN else ()
    return _store(store, coded) if any(isinstance(one, Coded) for one in coded) else None


def _store(store: ModelStore, tensors: Sequence[Tensor | Coded]) -> ModelInfo:
    parts = wire.encode(tensors)
    model = ModelInfo(wire.digest(parts), wire.length(parts))
    store.publish(model.digest, parts)
    return model
