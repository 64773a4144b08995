"""Krum and Multi-Krum: scores worked out by hand, the paper's formula restated, and what poisoners cannot do."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import View
from services.aggregation.distances import SPAN, TILE, squared_distances
from services.aggregation.krum import Krum, MultiKrum, by_score
from services.errors import AggregationFailed
from services.weights import DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]

BLOCKS = importlib.import_module("services.weights.blocks")  # its room shows a function of that name


def views(rows: Sequence[Any] | Array, dtype: str = "float32", parent: Any = None) -> list[View]:
    """Updates of one tensor, of learners in this order."""
    arrays = [np.array(row).astype(DTYPES[dtype]) for row in rows]
    before = [np.zeros_like(arrays[0]) if parent is None else np.array(parent).astype(DTYPES[dtype])]
    return [View(f"learner-{i:02}", [array], before, [True]) for i, array in enumerate(arrays)]


def combine(rule: Krum | MultiKrum, given_views: Sequence[View]) -> list[Any]:
    """The rule's model, its only tensor in float64."""
    (array,), state = rule.aggregate(given_views, [float(i) for i in range(len(given_views))])
    assert state is None
    assert array.dtype == given_views[0].arrays[0].dtype
    values: list[Any] = array.astype(np.float64).tolist()
    return values


# With n = 5 and f = 1 a score is the sum of the n - f - 2 = 2 smallest squared distances.
# Updates 0, 1, 3, 10, 100: scores 1 + 9 = 10, 1 + 4 = 5, 4 + 9 = 13, 49 + 81 = 130, 8100 + 9409 = 17509.
LINE = [[0], [1], [3], [10], [100]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_krum_takes_the_update_with_the_nearest_neighbours(dtype: str) -> None:
    """The smallest score, 5, is that of the update 1; the factors 0, 1, 2, … do not matter."""
    assert by_score(views(LINE, dtype), 1) == [1, 0, 2, 3, 4]
    assert combine(Krum(1), views(LINE, dtype)) == [1]


@pytest.mark.parametrize("dtype", FLOATS)
def test_multi_krum_takes_the_mean_of_the_best(dtype: str) -> None:
    """By default n - f = 4: (0 + 1 + 3 + 10) / 4 = 3.5; of the best two 1 and 0 it is 0.5; one is Krum."""
    assert combine(MultiKrum(1), views(LINE, dtype)) == [3.5]
    assert combine(MultiKrum(1, num_selected=2), views(LINE, dtype)) == [0.5]
    assert combine(MultiKrum(1, num_selected=1), views(LINE, dtype)) == [1]


def test_equal_scores_go_to_the_first_in_the_learners_order() -> None:
    """Of 0, 1, 2, 3, 4 the scores are 5, 2, 2, 2, 5: the second learner is taken; of 4, 3, 2, 1, 0 it is 3."""
    assert by_score(views([[0], [1], [2], [3], [4]]), 1) == [1, 2, 3, 0, 4]
    assert combine(Krum(1), views([[4], [3], [2], [1], [0]])) == [3]
    assert by_score(views([[7]] * 5), 1) == [0, 1, 2, 3, 4]


def test_distances_run_over_trainable_floating_tensors() -> None:
    """Counters and buffers decide nothing, whatever they hold; they are the median of all."""
    given_views = []
    for i, value in enumerate([0, 1, 3, 10, 100]):
        weight, buffer = (np.array([number], np.float32) for number in (value, -1e6 if i == 1 else 0))
        arrays: list[Array] = [weight, np.array([7 * i], np.int64), buffer]
        given_views.append(View(f"learner-{i}", arrays, [np.zeros_like(a) for a in arrays], [True, True, False]))
    got, _ = Krum(1).aggregate(given_views, [1.0] * 5)
    assert [array.tolist() for array in got] == [[1.0], [14], [0.0]]


@pytest.mark.parametrize(("rule", "needed"), [(Krum(0), 3), (Krum(1), 5), (MultiKrum(2), 7), (MultiKrum(0, 4), 4)])
def test_too_few_updates_are_a_failure_with_a_reason(rule: Krum | MultiKrum, needed: int) -> None:
    """n >= 2f + 3 (and n >= num_selected) when it comes to aggregating too, since learners drop out."""
    assert rule.min_updates == needed
    rule.aggregate(views([[i] for i in range(needed)]), [1.0] * needed)
    with pytest.raises(AggregationFailed, match=rf"needs {needed} updates, there are {needed - 1}") as caught:
        rule.aggregate(views([[i] for i in range(needed - 1)]), [1.0] * (needed - 1))
    assert caught.value.values == {"expected": needed, "got": needed - 1}


@pytest.mark.parametrize("wild", [1e3, 1e30, 3e38])
def test_poisoners_are_not_taken(wild: float) -> None:
    """Two of seven send what is far from all others, alone or together; neither is taken, whatever its name is."""
    draw = np.random.default_rng(3)
    parent = draw.standard_normal(300)
    honest = [parent + 0.01 * draw.standard_normal(300) for _ in range(5)]
    for bad in ([parent + wild, parent + wild], [parent + wild, parent - wild]):
        for rows in ([*bad, *honest], [*honest, *bad], [bad[0], *honest, bad[1]]):
            given_views = views(rows, parent=parent)
            (got,), _ = Krum(2).aggregate(given_views, [1.0] * 7)
            assert np.abs(got - parent).max() < 0.1
            (got,), _ = MultiKrum(2).aggregate(given_views, [1.0] * 7)
            assert np.abs(got - parent).max() < 0.1


def test_a_poisoner_cannot_blur_the_distances_of_others() -> None:
    """Values whose squares overflow float64 leave the honest scores as they are.

    Of 0, 1, 3, 10, 100 with three neighbours 3 has the smallest: 9 + 4 + 49 = 62.
    """
    wild = [[1.7e308, -1.7e308], [-1.7e308, 1.7e308]]
    honest = [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [10.0, 0.0], [100.0, 0.0]]
    distances = squared_distances(views([wild[0], *honest, wild[1]], "float64"))
    assert np.array_equal(distances[1:6, 1:6], squared_distances(views(honest, "float64")))
    assert np.isinf(distances[0, 1:]).all()
    assert combine(Krum(2), views([wild[0], *honest, wild[1]], "float64")) == [3, 0]


def restated(table: Array, num_byzantine: int) -> list[float]:
    """The paper's scores, of whole numbers and so exact."""
    count = len(table)
    found = []
    for i in range(count):
        others = sorted(float(((table[i] - table[j]) ** 2).sum()) for j in range(count) if j != i)
        found.append(sum(others[: count - num_byzantine - 2]))
    return found


@given(st.data())
def test_the_choice_is_that_of_the_papers_formula(data: st.DataObject) -> None:
    """Whole numbers in float64, where scores are exact: the order of the updates is that of the scores, ties too."""
    num_byzantine = data.draw(st.integers(0, 3))
    count = data.draw(st.integers(2 * num_byzantine + 3, 40))
    row = st.lists(st.integers(-50, 50), min_size=4, max_size=4)
    table = np.array(data.draw(st.lists(row, min_size=count, max_size=count)), np.float64)
    scores = restated(table, num_byzantine)
    order = sorted(range(count), key=lambda index: (scores[index], index))
    given_views = views(table, "float64", parent=[1, 2, 3, 4])
    assert by_score(given_views, num_byzantine) == order
    assert combine(Krum(num_byzantine), given_views) == table[order[0]].tolist()
    kept = table[sorted(order[: count - num_byzantine])]
    assert np.allclose(combine(MultiKrum(num_byzantine), given_views), kept.mean(axis=0), rtol=1e-14, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
def test_distances_are_those_of_float64(dtype: str) -> None:
    """Small differences from a large model are not lost: within 1e-9 of the differences' own squares."""
    draw = np.random.default_rng(5)
    parent = 100 * draw.standard_normal(3 * TILE + 17)
    given_views = views([parent + draw.standard_normal(parent.size) for _ in range(35)], dtype, parent)
    rows = np.stack([view.arrays[0].astype(np.float64) for view in given_views])
    want = np.stack([((rows - row) ** 2).sum(axis=1) for row in rows])
    assert np.allclose(squared_distances(given_views), want, rtol=1e-9, atol=1e-6)


PROGRAM = """
import hashlib
import numpy as np
from services.aggregation import View
from services.aggregation.distances import SPAN, TILE, squared_distances
draw = np.random.default_rng(11)
models = [[draw.standard_normal(2 * SPAN * TILE + 99, np.float32), draw.standard_normal(7)] for _ in range(34)]
views = [View(str(i), model, models[0]) for i, model in enumerate(models)]
print(hashlib.sha256(squared_distances(views).tobytes()).hexdigest())
"""


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extents and spans are of fixed length: one thread and four give the same distances."""
    draw = np.random.default_rng(11)
    models: list[list[Array]] = [
        [draw.standard_normal(2 * SPAN * TILE + 99, np.float32), draw.standard_normal(7)] for _ in range(5)
    ]
    given_views = [View(str(i), model, models[0]) for i, model in enumerate(models)]
    found = set()
    for threads in (1, 4):
        monkeypatch.setattr(BLOCKS, "THREADS", threads)
        found.add(squared_distances(given_views).tobytes())
    assert len(found) == 1


def test_the_threads_of_the_matrix_library_change_no_bit() -> None:
    """Products are too small for the library to split them: the same distances whatever its number of threads is."""
    found = set()
    for threads in ("1", "2"):
        limits = {f"{name}_NUM_THREADS": threads for name in ("OPENBLAS", "MKL", "OMP", "VECLIB")}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1
