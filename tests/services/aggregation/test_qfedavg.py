"""QFedAvg: numbers worked out by hand, the paper's formula restated, and updates that do not tell their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import View
from services.aggregation.fedavg import FedAvg
from services.aggregation.qfedavg import QFedAvg
from services.errors import InvalidWeight
from services.weights import BLOCK, DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]


def combine(
    rule: QFedAvg,
    parent: Sequence[Array],
    rows: Sequence[Sequence[Array]],
    losses: Sequence[float],
    factors: Sequence[float],
    trainable: Sequence[bool] = (),
) -> list[Array]:
    """The rule's model."""
    views = [
        View(f"learner-{i}", row, parent, trainable, {"loss_before_training": loss})
        for i, (row, loss) in enumerate(zip(rows, losses, strict=True))
    ]
    model, state = rule.aggregate(views, factors)
    assert state is None
    return model


# q = 1, learning rate 0.5: L = 2. W = (10, 0). Learner a with loss 4 goes to (12, 0), b with loss 2 to (10, 1).
# D_a = 2 (-2, 0) = (-4, 0), |D_a|^2 = 16; D_b = (0, -2), |D_b|^2 = 4.
# h_a = 1 * 4^0 * 16 + 2 * 4 = 24; h_b = 4 + 2 * 2 = 8.
# Plainly: W - (4 (-4, 0) + 2 (0, -2)) / (24 + 8) = (10 + 16/32, 4/32) = (10.5, 0.125).
# b weighted three times: W - (4 (-4, 0) + 6 (0, -2)) / (24 + 24) = (10 + 1/3, 1/4).
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_model_is_the_one_worked_out_by_hand(dtype: str) -> None:
    """Exact in every dtype; a third is rounded to it."""
    parent, first, second = (np.array(v).astype(DTYPES[dtype]) for v in ([10, 0], [12, 0], [10, 1]))
    (got,) = combine(QFedAvg(1, 0.5), [parent], [[first], [second]], [4, 2], [1, 1])
    assert got.dtype == DTYPES[dtype]
    assert got.astype(np.float64).tolist() == [10.5, 0.125]
    (got,) = combine(QFedAvg(1, 0.5), [parent], [[first], [second]], [4, 2], [1, 3])
    assert got.astype(np.float64).tolist() == [float(np.float64(10 + 1 / 3).astype(DTYPES[dtype])), 0.25]


def test_what_is_not_trained_takes_the_weighted_mean_and_has_no_length() -> None:
    """The weights are those from above, whatever counter and buffer hold: (1 * 100 + 3 * 300) / 4 = 250."""
    parent = [np.array([10.0, 0.0]), np.array(0), np.array([0], np.float32)]
    rows = [
        [np.array(v), np.array(far), np.array([far], np.float32)] for v, far in (([12.0, 0.0], 100), ([10.0, 1.0], 300))
    ]
    got = combine(QFedAvg(1, 0.5), parent, rows, [4, 2], [1, 3], [True, True, False])
    assert got[0].tolist() == pytest.approx([10 + 1 / 3, 0.25], rel=1e-15)
    assert [array.tolist() for array in got[1:]] == [250, [250.0]]


def restated(start: Array, rows: Sequence[Array], losses: Array, p: Array, q: float, learning_rate: float) -> Array:
    """The paper's formula as it stands, weighted by p, in float64."""
    lipschitz = 1 / learning_rate
    above, below = np.zeros_like(start), 0.0
    for row, loss, weight in zip(rows, losses, p, strict=True):
        delta = lipschitz * (start - row)
        above += weight * loss**q * delta
        below += weight * (q * loss ** (q - 1) * np.sum(delta**2) + lipschitz * loss**q)
    return start - above / below


@given(st.data())
def test_it_is_the_papers_formula(data: st.DataObject) -> None:
    """Any q, losses, weights and learning rate, several tensors of one dtype."""
    dtype = DTYPES[data.draw(st.sampled_from(FLOATS))]
    count = data.draw(st.integers(1, 6))
    q, learning_rate = data.draw(st.floats(0.01, 5)), data.draw(st.floats(0.001, 2))
    losses = data.draw(st.lists(st.floats(0.01, 20), min_size=count, max_size=count))
    factors = data.draw(st.lists(st.integers(1, 1000), min_size=count, max_size=count))
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    parent = draw.standard_normal(15).astype(dtype)
    rows = [(parent.astype(np.float64) + 0.1 * draw.standard_normal(15)).astype(dtype) for _ in range(count)]
    cut = [np.array_split(row, [4, 4, 11]) for row in (parent, *rows)]
    got = np.concatenate(combine(QFedAvg(q, learning_rate), cut[0], cut[1:], losses, factors))
    wide = [row.astype(np.float64) for row in rows]
    want = restated(parent.astype(np.float64), wide, np.array(losses), np.array(factors), q, learning_rate)
    limit = float(ml_dtypes.finfo(dtype).eps)
    assert np.allclose(got.astype(np.float64), want, rtol=limit, atol=8 * limit)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any))
def test_with_q_0_it_is_fedavg_to_the_bit(factors: list[int]) -> None:
    """No loss counts then; updates of factor 0 are left out."""
    draw = np.random.default_rng(1)
    rows = [[draw.standard_normal(9), np.array(i)] for i, _ in enumerate(factors)]
    got = combine(QFedAvg(0, 0.1), [np.full(9, 0.3), np.array(0)], rows, [float(i) for i in range(len(rows))], factors)
    want, _ = FedAvg().aggregate([View(str(i), row) for i, row in enumerate(rows)], factors)
    assert [array.tobytes() for array in got] == [array.tobytes() for array in want]


def test_lengths_run_over_every_block_of_every_tensor() -> None:
    """Of n values that go from 0 to 1 alone, with loss and L of 1 and q 1, the step is 1 / (n + 1)."""
    shapes: list[tuple[int, ...]] = [(9 * BLOCK + 3,), (5, 7), ()]
    count = sum(int(np.prod(shape)) for shape in shapes)
    got = combine(QFedAvg(1, 1), [np.zeros(s) for s in shapes], [[np.ones(s) for s in shapes]], [1.0], [1])
    for array, shape in zip(got, shapes, strict=True):
        assert np.allclose(array, np.full(shape, 1 / (count + 1)), rtol=1e-12)


def test_the_learner_with_the_higher_loss_pulls_harder() -> None:
    """Two learners pull the same length in opposite directions: the model goes to the one that is worse off."""
    parent, rows = [np.zeros(1)], [[np.array([1.0])], [np.array([-1.0])]]
    pulls = [combine(QFedAvg(q, 0.1), parent, rows, [3.0, 1.0], [1, 1])[0].item() for q in (0, 0.5, 2)]
    assert pulls[0] == 0
    assert 0 < pulls[1] < 1
    assert pulls[2] > 0


def test_losses_and_updates_at_the_ends_of_the_floats_are_no_error() -> None:
    """A loss of 0 counts as 1e-10; powers of large losses do not overflow; an endless update moves nothing."""
    parent, near = [np.zeros(1)], [[np.array([1.0])], [np.array([-1.0])]]
    (zero,) = combine(QFedAvg(2, 0.1), parent, near, [0.0, 1.0], [1, 1])
    (tiny,) = combine(QFedAvg(2, 0.1), parent, near, [1e-10, 1.0], [1, 1])
    assert zero.tobytes() == tiny.tobytes()
    assert -1 < zero.item() < 0
    (got,) = combine(QFedAvg(1000, 0.1), parent, near, [1e300, 1e299], [1, 1])
    assert 0 < got.item() <= 1
    far = [near[0], [np.array([1e300])]]
    (got,) = combine(QFedAvg(1, 0.1), parent, far, [1.0, 1.0], [1, 1])
    assert got.item() == 0
    (got,) = combine(QFedAvg(50, 50.0), parent, far, [1.0, 1e-300], [1, 1])  # who does not pull does not brake
    assert got.item() == 0.5


@pytest.mark.parametrize("value", ["missing", None, -0.1, float("nan"), float("inf")])
def test_an_update_that_does_not_tell_its_loss_is_refused(value: Any) -> None:
    """The error names the key."""
    QFedAvg(1, 0.1).check_update({}, {"loss_before_training": 0.0})
    metrics = {} if value == "missing" else {"loss_before_training": value}
    with pytest.raises(InvalidWeight, match="loss_before_training") as caught:
        QFedAvg(1, 0.1).check_update({"loss_before_training": 1.0}, metrics)
    assert caught.value.values["key"] == "loss_before_training"
