"""FedStride: FedAvg to the last bit, with few learners' tensors looked at at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import View
from services.aggregation.fedavg import FedAvg
from services.aggregation.fedstride import FedStride
from services.errors import AggregationFailed
from services.weights import BLOCK, DTYPES
from tests.services.arrays import Array


def octets(arrays: Sequence[Array]) -> list[tuple[bytes, tuple[int, ...], str]]:
    """Bits, shapes and dtypes."""
    return [(array.tobytes(), array.shape, array.dtype.name) for array in arrays]


def test_a_mean_worked_out_by_hand_in_blocks_of_two() -> None:
    """Updates 1, 5, 3, 8, 10 weighted 1:2:1:3:1 are (1 + 10 + 3 + 24 + 10) / 8 = 6; of integers too.

    True weigh 3 of 8 in the last tensor: False.
    """
    rows, weights = [1, 5, 3, 8, 10], [1.0, 2.0, 1.0, 3.0, 1.0]
    updates = [[np.array([row], np.float32), np.int16(row), np.array(row == 8)] for row in rows]
    views = [View(f"learner-{i}", [np.asarray(array) for array in arrays]) for i, arrays in enumerate(updates)]
    got, state = FedStride(stride_length=2).aggregate(views, weights)
    assert [array.tolist() for array in got] == [[6.0], 6, False]
    assert state is None


@given(st.data())
def test_it_is_fedavg_to_the_last_bit(data: st.DataObject) -> None:
    """Any number of learners in blocks of any length, any weights with some of 0, tensors of every dtype."""
    count, stride = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 8))
    factors = data.draw(st.lists(st.integers(0, 2**53) | st.floats(0, 1), min_size=count, max_size=count))
    draw = np.random.default_rng(data.draw(st.integers(0, 1000)))
    models = [
        [(100 * draw.standard_normal(shape)).astype(dtype) for dtype in DTYPES.values() for shape in ((), (3, 2), (0,))]
        + [np.array([-0.0, 1e308, 2.0**53]), np.array([2**53 - 1, -(2**62)])]
        for _ in range(count)
    ]
    views = [View(str(i), model) for i, model in enumerate(models)]
    rule = FedStride(stride_length=stride)
    if not any(factors):
        with pytest.raises(AggregationFailed, match="no update has a scaling factor above 0"):
            rule.aggregate(views, factors)
        return
    assert octets(rule.aggregate(views, factors)[0]) == octets(FedAvg().aggregate(views, factors)[0])


def test_every_block_of_a_large_tensor_is_averaged() -> None:
    """Tensors longer than what is worked on at a time."""
    for dtype in ("float32", "int32"):
        first = np.arange(9 * BLOCK + 3).astype(dtype)
        views = [View(str(step), [first + step]) for step in (0, 2, 4)]
        (got,), _ = FedStride(stride_length=1).aggregate(views, [1, 1, 1])
        assert np.array_equal(got, first + 2)


class Lent(Sequence[Array]):
    """A model in memory that the store uses for something else once a later block's learner is looked at."""

    def __init__(self, arrays: list[Array], others: Callable[[], list[Lent]]) -> None:
        self.arrays, self._others = arrays, others

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | list[Array]:
        for other in self._others():
            for array in other.arrays:
                array.fill(99)
        return self.arrays[index]


@pytest.mark.parametrize(("stride", "blocks"), [(1, [0, 1, 2, 3, 4]), (2, [0, 0, 1, 1, 2]), (3, [0, 0, 0, 1, 1])])
def test_a_block_of_learners_is_done_before_the_next_is_looked_at(stride: int, blocks: list[int]) -> None:
    """A store needs to hold ready the updates of `stride_length` learners, no more: 0, 1, 2, 3, 4 are 2."""
    models: list[Lent] = []
    for i, block in enumerate(blocks):
        arrays = [np.full(9, i, np.float32), np.array(i), np.array(i > 1)]
        models.append(Lent(arrays, lambda block=block: [m for m, b in zip(models, blocks, strict=True) if b < block]))  # type: ignore[misc]
    got, _ = FedStride(stride_length=stride).aggregate([View(str(i), m) for i, m in enumerate(models)], [1.0] * 5)
    assert [array.tolist() for array in got] == [[2.0] * 9, 2, True]
