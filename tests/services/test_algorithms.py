"""What travels beside the model: its form, how differences to it are added, and which runs may ask for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from services.algorithms import ALGORITHMS, add_differences, zeros
from services.config import resolve
from services.engine import aggregate, store_model
from services.errors import AggregationFailed, InvalidConfig, MalformedUpdate, ShapeMismatch
from services.federation import Aggregation, Share, plan
from services.store import STORES, ModelStore, open_store
from services.weights import BLOCK, Expected, Spec, Tensor, admit, layout_of, name_tensors, wire
from tests.redis_server import store_config

ENDING = {"termination": {"federation_rounds": 1}}
MODEL = [
    Tensor("w", np.full((2, 2), 5, np.float32)),
    Tensor("count", np.array(3)),
    Tensor("mean", np.ones(2, np.float32), trainable=False),
    Tensor("half", np.ones((), ml_dtypes.bfloat16)),
]


def test_a_group_has_the_form_of_the_trainable_floating_tensors() -> None:
    """Whole numbers and what is not trained are left out; all is 0."""
    made = zeros(MODEL)
    assert [(one.name, one.dtype.name, one.shape, one.trainable) for one in made] == [
        ("w", "float32", (2, 2), True),
        ("half", "bfloat16", (), True),
    ]
    assert not any(one.array.any() for one in made)


def test_differences_are_added_over_all_learners() -> None:
    """1 + (2 + 6) / 4 = 3 and -1 + (0 + 4) / 4 = 0 with four learners that weigh 1; what was there is left alone."""
    current = [np.array([1.0, -1.0], np.float32)]
    differences = [[np.array([2.0, 0.0], np.float32)], [np.array([6.0, 4.0], np.float32)]]
    out = [np.empty(2, np.float32)]
    add_differences(current, [(one, 1.0) for one in differences], 4, 4, out)
    assert out[0].tolist() == [3, 0]
    assert current[0].tolist() == [1, -1]


def test_a_mean_over_more_weight_is_the_smaller() -> None:
    """(6 · 1 + 3 · 2 - 1 · 4) / 8 = 1: six that were in it, three that came, one that went."""
    out = [np.empty(1)]
    add_differences([np.ones(1)], [([np.array([2.0])], 3.0), ([np.array([4.0])], -1.0)], 6, 8, out)
    assert out[0].tolist() == [1]


def test_groups_larger_than_a_block_are_added_whole() -> None:
    """Every place of a tensor of several blocks, and of the small one behind it."""
    shapes = [(3, BLOCK), (5,)]
    rng = np.random.default_rng(1)
    current, *differences = [[rng.normal(size=shape) for shape in shapes] for _ in range(4)]
    out = [np.empty(shape) for shape in shapes]
    add_differences(current, [(one, 1.0) for one in differences], 10, 10, out)
    for i, made in enumerate(out):
        np.testing.assert_allclose(made, current[i] + sum(one[i] for one in differences) / 10, rtol=1e-14, atol=1e-15)


# ---- which runs
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"scheduler": "Asynchronous", "aggregation_rule": "FedBuff"}, "Asynchronous has no rounds"),
        ({"transforms": [{"name": "ClipNorm", "norm": 1.0}]}, "would go past them"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(more: dict[str, Any], says: str) -> None:
    """With the reason; without the algorithm the same is taken."""
    with pytest.raises(InvalidConfig, match=says):
        plan(resolve(ENDING, {"algorithm": "SCAFFOLD", **more}))
    assert plan(resolve(ENDING, more)).algorithm == ALGORITHMS["None"]()


@pytest.mark.parametrize(
    "more",
    [
        {"scheduler": "SemiSynchronous", "schedule": {"semi_sync_lambda": 1}},
        {"encoding": {"up": "int8", "down": "bf16"}},
        {"server_optimizer": "FedAdam"},
    ],
)
def test_other_axes_may_be_anything(more: dict[str, Any]) -> None:
    """Step budgets, encodings and server optimizers go together with it."""
    assert plan(resolve(ENDING, {"algorithm": "SCAFFOLD", **more})).algorithm.extras == ("control",)


# ---- what an update may bring
WANTED = {"control": Spec.of(zeros(MODEL))}


def test_extra_tensors_are_those_that_are_wanted() -> None:
    """A group that is missing, that nobody asked for, or of another form is named."""
    model = name_tensors([np.ones(2, np.float32)])

    def admitted(expected: Mapping[str, Spec], **extra: Sequence[Tensor]) -> None:
        parts = wire.encode(model, metadata={"n": 1}, extra=extra)
        layout = layout_of(b"".join(wire.encode(model)))
        admit(memoryview(b"".join(parts)), Expected(layout, expected))

    right = zeros(MODEL)
    admitted(WANTED, control=right)
    with pytest.raises(MalformedUpdate, match="misses the extra tensors 'control'"):
        admitted(WANTED)
    with pytest.raises(MalformedUpdate, match=r"holds the extra tensors 'more'.* exchanges control"):
        admitted(WANTED, control=right, more=right)
    with pytest.raises(MalformedUpdate, match=r"holds the extra tensors 'control'.* exchanges no tensors beside"):
        admitted({}, control=right)
    with pytest.raises(ShapeMismatch, match="extra 'control': expected 2 tensors, got 1: 'half' is missing"):
        admitted(WANTED, control=right[:1])
    with pytest.raises(ShapeMismatch, match="extra 'control': tensor 'w': expected dtype float32, got float64"):
        admitted(WANTED, control=[Tensor("w", np.zeros((2, 2))), right[1]])


# ---- the engine
@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ModelStore:
    """Each store of the registry."""
    return open_store(store_config(request, request.param, tmp_path), tmp_path)


def job(store: ModelStore, *changes: float) -> Aggregation:
    """Updates whose control changes by these numbers, in a federation of four learners."""
    model = store_model(store, MODEL, extras=("control",))
    shares = []
    for i, change in enumerate(changes):
        group = [one._replace(array=np.full(one.shape, change, one.dtype)) for one in zeros(MODEL)]
        store.put(f"update-{i}", wire.encode(MODEL, {}, {}, {"control": group}))
        shares.append(Share(f"learner-{i}", f"update-{i}", 1.0, {}, {}))
    parts = plan(resolve(ENDING, {"algorithm": "SCAFFOLD"}))
    return Aggregation("run", 1, model, tuple(shares), parts, None, None, learners=4)


def test_the_next_model_goes_with_the_next_control(store: ModelStore) -> None:
    """0 + (3 + 5) / 4 = 2, in a document of its own under its digest; the control before is left as it was."""
    one = job(store, 3, 5)
    made = aggregate(one, store, time.perf_counter)
    info = made.model.inputs["control"]
    document = wire.decode(store.get(info.digest))
    assert [(t.name, t.dtype.name, t.array.tolist()) for t in document.tensors] == [
        ("w", "float32", [[2, 2], [2, 2]]),
        ("half", "bfloat16", 2),
    ]
    assert (wire.digest([store.get(info.digest)]), len(store.get(info.digest))) == (info.digest, info.size)
    assert [(known, layout.spec) for known, layout in made.inputs] == [(info, WANTED["control"])]
    before = wire.decode(store.get(one.parent.inputs["control"].digest))
    assert not any(tensor.array.any() for tensor in before.tensors)


def test_a_control_that_becomes_infinite_fails_the_round(store: ModelStore) -> None:
    """Large finite changes, round after round, until the control does not fit a float32; nothing else is lost."""
    one = job(store, *[3e38] * 4)
    made = aggregate(one, store, time.perf_counter)
    with pytest.raises(AggregationFailed, match="not finite: tensor 'w'"):
        aggregate(replace(one, parent=made.model), store, time.perf_counter)
    assert aggregate(one, store, time.perf_counter).model == made.model
