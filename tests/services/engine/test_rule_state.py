"""States of rules and server optimizers that are kept: read again they are the same to the last bit, and so is what is
made with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services import ModelStoreConfig
from services.config import resolve
from services.engine import Made, load_state
from services.errors import UnknownModel
from services.federation import Aggregation, plan
from services.optimizers import OPTIMIZERS
from services.store import ModelStore, open_store
from tests.services.engine.test_local import floats, job, model, run

ENDLESS = {"termination": {"federation_rounds": 9}, "min_learners": 7}
REMEMBERING = [name for name in OPTIMIZERS if name != "None"]


def opened(folder: Path, name: str = "OnDisk") -> ModelStore:
    """The store of a process that is started now."""
    return open_store(ModelStoreConfig(name, 0), folder)


def steered(store: ModelStore, optimizer: str, values: Sequence[float]) -> Aggregation:
    """An aggregation that a server optimizer has the last word in."""
    one = job(store, values=values, model=model)
    return replace(one, plan=plan(resolve({}, {**ENDLESS, "server_optimizer": optimizer})))


def following(one: Aggregation, made: Made, states: Sequence[Any]) -> Aggregation:
    """The next round of the same updates."""
    return replace(one, round=2, parent=made.model, aggregator_state=states[0], optimizer_state=states[1])


def alike(one: Any, other: Any) -> bool:
    """Whether two parts of a state are the same: kind, dtype, shape and bits."""
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("optimizer", REMEMBERING)
def test_an_optimizer_goes_on_as_if_nothing_had_happened(optimizer: str, tmp_path: Path) -> None:
    """What its state was read from belongs to a process that has ended."""
    store = opened(tmp_path)
    one = steered(store, optimizer, (1, 2, 3, 4, 5, 6, 7.5))
    made = run(one, store)
    assert made.states[0] is None
    expected = run(following(one, made, made.states), store).model
    store.close()
    store = opened(tmp_path)
    states = [load_state(store, key) for key in made.stored]
    assert states[1] is not None
    assert alike(dict(states[1]), dict(made.states[1] or {}))
    assert run(following(one, made, states), store).model == expected
    store.close()


def test_a_rule_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """FedRec's sums and weight."""
    store = opened(tmp_path)
    one = job(store, "FedRec", (3.25,), floats)
    made = run(one, store)
    more = replace(following(one, made, made.states), shares=job(store, "FedRec", (7.5,), floats).shares)
    expected = run(more, store).model
    store.close()
    store = opened(tmp_path)
    states = [load_state(store, key) for key in made.stored]
    assert states[0] is not None
    assert alike(dict(states[0]), dict(made.states[0] or {}))
    assert run(replace(more, aggregator_state=states[0]), store).model == expected
    store.close()


def test_a_rule_without_a_state_leaves_none(tmp_path: Path) -> None:
    """Nothing is stored for it."""
    store = opened(tmp_path)
    made = run(job(store), store)
    assert made.stored == (None, None)
    assert load_state(store, None) is None
    store.close()


def test_a_store_that_ends_with_the_process_is_given_none(tmp_path: Path) -> None:
    """The models would be gone too."""
    store = opened(tmp_path, "InMemory")
    made = run(steered(store, "FedAdam", (1, 2, 3, 4, 5, 6, 7)), store)
    assert made.states[1] is not None
    assert made.stored == (None, None)


def test_a_state_that_is_lost_is_named(tmp_path: Path) -> None:
    """The run that needs it can say so."""
    store = opened(tmp_path)
    with pytest.raises(UnknownModel, match="state-run-1-optimizer"):
        load_state(store, "state-run-1-optimizer")
    store.close()
