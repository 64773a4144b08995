"""One aggregation over stored updates: the same document whatever the store, and nothing left when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from services.aggregation import RULES, State, View
from services.config import resolve
from services.engine import Made, aggregate, store_model
from services.engine import local as engine
from services.errors import AggregationFailed, ShapeMismatch
from services.federation import Aggregation, Share, plan
from services.federation.combinations import allowed
from services.optimizers import OPTIMIZERS
from services.store import STORES, ModelStore, OnDisk, open_store
from services.weights import Spec, Tensor, wire
from tests.redis_server import store_config
from tests.services.arrays import Array, joined

NEEDS: dict[str, dict[str, float]] = {
    "Krum": {"num_byzantine": 1},
    "MultiKrum": {"num_byzantine": 1},
    "Bulyan": {"num_byzantine": 1},
    "QFedAvg": {"q": 1, "learning_rate": 0.5},
    "FedStride": {"stride_length": 2},
}
VALUES = (1, 2, 3, 4, 5, 6, 7)
METRICS: dict[str, float | None] = {"loss_before_training": 1.5}  # what rules read beside the tensors
METADATA = {"num_completed_batches": 8}
every_rule = pytest.mark.parametrize("rule", RULES)


def model(value: float) -> list[Tensor]:
    """Tensors of several dtypes, an empty one and one that is not trained; large enough for a file in memory."""
    return [
        Tensor("large", np.full((300, 301), value, np.float32)),
        Tensor("empty", np.zeros((0, 3), np.float64)),
        Tensor("half", np.full(7, value, ml_dtypes.bfloat16)),
        Tensor("count", np.array(int(value)), False),
        Tensor("mask", np.array([value > 2, True])),
        Tensor("none", np.zeros(0, np.int8)),
    ]


def floats(value: float) -> list[Tensor]:
    """Float32 tensors of random values around one, whose names make NaN of the bytes between them."""
    made = np.random.default_rng(int(value)).normal(value, 1, 90_400).astype(np.float32)
    names = ("\u00ff\u007f" * 100, "second", "third")
    parts = np.split(made, [90_300, 90_307])
    return [Tensor(names[0], parts[0].reshape(300, 301)), Tensor(names[1], parts[1], False), Tensor(names[2], parts[2])]


def job(
    store: ModelStore,
    rule: str = "FedAvg",
    values: Sequence[float] = VALUES,
    model: Callable[[float], list[Tensor]] = model,
) -> Aggregation:
    """An aggregation of updates that hold these values, in the store."""
    shares = []
    for i, value in enumerate(values):
        store.put(f"update-{i}", wire.encode(model(value), {"loss": 1.0}, {"num_training_examples": 1}))
        shares.append(Share(f"learner-{i}", f"update-{i}", 1.0, METRICS, METADATA))
    config = {"aggregation_rule": rule, "aggregation": NEEDS.get(rule, {}), "min_learners": 7}
    if rule not in allowed("Synchronous"):
        config["scheduler"] = "Asynchronous"
    parts = plan(resolve({"termination": {"federation_rounds": 1}}, config))
    return Aggregation("run", 1, store_model(store, model(0)), tuple(shares), parts, None, None)


def run(one: Aggregation, store: ModelStore) -> Made:
    """Do it."""
    return aggregate(one, store, time.perf_counter)


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ModelStore:
    """Each store of the registry."""
    return open_store(store_config(request, request.param, tmp_path), tmp_path)


@every_rule
@pytest.mark.parametrize("model", [model, floats])
def test_the_document_is_the_encoded_model(
    model: Callable[[float], list[Tensor]], rule: str, store: ModelStore
) -> None:
    """What is stored is what `encode` makes of the rule's model, under its digest, whatever the store.

    Also when the engine gives a rule all values as one array.
    """
    one = job(store, rule, model=model)
    made = run(one, store)
    models = [model(value) for value in VALUES]
    flags, before = [tensor.trainable for tensor in models[0]], [tensor.array for tensor in model(0)]
    updates = [[tensor.array for tensor in tensors] for tensors in models]
    views = [View(str(i), arrays, before, flags, METRICS, METADATA, current=before) for i, arrays in enumerate(updates)]
    arrays, _ = one.plan.aggregator.aggregate(views, [1.0] * len(views), None)
    want = joined(wire.encode([Tensor(t.name, array, t.trainable) for t, array in zip(model(0), arrays, strict=True)]))
    assert (made.model.digest, made.model.size) == (wire.digest([want]), len(want))
    assert bytes(store.get(made.model.digest)) == want
    assert made.layout.spec == Spec.of(model(0))


@pytest.mark.parametrize("small", [0, 1 << 30])
def test_a_model_is_the_same_finished_in_threads_or_not(
    small: int, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large models are hashed, written and looked through at once, small ones one after the other."""
    one = job(store, "FedAvg")
    expected = run(one, store).model.digest
    monkeypatch.setattr(engine, "SMALL", small)
    assert run(one, store).model.digest == expected


@dataclass(frozen=True)
class OfItsOwn:
    """A rule that leaves the given room alone."""

    make: Callable[[Sequence[Array]], list[Array]]
    elementwise: bool = False

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate."""
        return self.make(views[0].arrays), {"calls": 1}


def with_rule(
    one: Aggregation, make: Callable[[Sequence[Array]], list[Array]], elementwise: bool = False
) -> Aggregation:
    """The same aggregation by a rule that makes arrays of its own."""
    return replace(one, plan=replace(one.plan, aggregator=OfItsOwn(make, elementwise)))


def test_a_rule_may_make_arrays_of_its_own(store: ModelStore) -> None:
    """They are copied into the document; its state is handed back."""
    one = with_rule(job(store), lambda arrays: [array.copy() for array in arrays])
    made = run(one, store)
    assert bytes(store.get(made.model.digest)) == joined(wire.encode(model(1)))
    assert made.states == ({"calls": 1}, None)


def test_an_elementwise_rule_gets_one_array_of_a_float32_model(store: ModelStore) -> None:
    """What it makes of it is the document's; of a model of several dtypes it gets the tensors."""
    given: list[int] = []

    def make(arrays: Sequence[Array]) -> list[Array]:
        given.append(len(arrays))
        return [np.array(array) for array in arrays]

    made = run(with_rule(job(store, model=floats), make, elementwise=True), store)
    assert bytes(store.get(made.model.digest)) == joined(wire.encode(floats(1)))
    made = run(with_rule(job(store), make, elementwise=True), store)
    assert bytes(store.get(made.model.digest)) == joined(wire.encode(model(1)))
    assert given == [1, 6]


def test_an_optimizer_moves_the_stored_model_and_its_state_is_handed_back(store: ModelStore) -> None:
    """Momentum 1/2, aggregates of 4: Delta 4 makes 4, then Delta 0 makes 4 + 2; counter and mask take the aggregate."""
    one = job(store)
    one = replace(one, plan=replace(one.plan, optimizer=OPTIMIZERS["FedAvgM"](momentum=0.5)))
    first = run(one, store)
    second = run(replace(one, parent=first.model, optimizer_state=first.states[1]), store)
    for made, want in ((first, 4.0), (second, 6.0)):
        large, empty, half, count, mask, none = wire.decode(store.get(made.model.digest)).arrays
        assert np.all(large == want)
        assert np.all(half == want)
        assert (count.tolist(), mask.tolist(), empty.size, none.size) == (4, [True, True], 0, 0)


def test_other_tensors_than_the_models_are_refused(store: ModelStore) -> None:
    """A rule cannot change a shape or dtype unseen."""
    one = with_rule(job(store), lambda arrays: [array.astype(np.float64) for array in arrays])
    with pytest.raises(ShapeMismatch, match="tensor 'large': expected dtype float32"):
        run(one, store)


@every_rule
def test_what_fails_leaves_nothing(rule: str, tmp_path: Path) -> None:
    """Too few updates, or a model that is not finite: a reason, and no file that was not there before."""
    store = OnDisk(tmp_path)
    one = replace(job(store, rule), shares=())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AggregationFailed):
        run(one, store)
    infinite = with_rule(job(store), lambda arrays: [np.full_like(arrays[0], np.inf), *arrays[1:]])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AggregationFailed, match="the aggregate is not finite: tensor 'large'"):
        run(infinite, store)
    assert sorted(tmp_path.iterdir()) == before
