"""The state of a rule or a server optimizer as a weights document, so that a run can go on after its controller died.

Its arrays are tensors, its lists of arrays groups beside them, its numbers and texts metadata.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..aggregation import State
from ..federation import Aggregation, States
from ..store import ModelStore
from ..weights import Tensor, wire


def store_states(store: ModelStore, job: Aggregation, states: tuple[State | None, State | None]) -> States:
    """Store what an aggregation left for the next one; returns the keys. A store that is not durable is given nothing:
    the states end with the process, as the models do."""
    rule, optimizer = states
    return _stored(store, job, "rule", rule), _stored(store, job, "optimizer", optimizer)


def _stored(store: ModelStore, job: Aggregation, part: str, state: State | None) -> str | None:
    if state is None or not store.durable:
        return None
    key = f"state-{job.run_id}-{job.round}-{part}"
    store.put(key, _document(state))
    return key


def _document(state: State) -> list[wire.Buffer]:
    arrays, groups, rest = [], {}, {}
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            arrays.append(Tensor(name, value))
        elif isinstance(value, list):
            groups[name] = [Tensor(str(index), array) for index, array in enumerate(value)]
        else:
            rest[name] = value
    return wire.encode(arrays, metadata=rest, extra=groups)


def load_state(store: ModelStore, key: str | None) -> State | None:
    """A stored state; raises UnknownModel when it is not there."""
    if key is None:
        return None
    document = wire.decode(store.get(key))
    state: dict[str, Any] = {tensor.name: tensor.array for tensor in document.tensors}
    groups = {name: [tensor.array for tensor in group] for name, group in document.extra.items()}
    return {**state, **groups, **document.metadata}
