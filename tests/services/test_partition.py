"""Partitions: every row exactly once, reproducible, and as skewed as asked for."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from services.partition import (
    dirichlet_mixture_partition,
    dirichlet_partition,
    iid_partition,
    quantity_skew_partition,
    shard_partition,
)

LABELS = np.repeat(np.arange(10), 30)  # (300,): ten classes of thirty rows
INDEX_PARTITIONS: dict[str, Callable[[int, int], list[NDArray[np.int64]]]] = {
    "dirichlet": lambda n, seed: dirichlet_partition(LABELS, n, alpha=0.1, seed=seed, min_size=5),
    "mixture": lambda n, seed: dirichlet_mixture_partition(LABELS, n, alpha=0.1, seed=seed),
    "shard": lambda n, seed: shard_partition(LABELS, n, classes_per_partition=4, seed=seed),
    "quantity": lambda n, seed: quantity_skew_partition(LABELS, n, alpha=0.3, seed=seed, min_size=5),
}


def test_iid_chunks_hold_every_row_once_and_sizes_differ_by_one_at_most() -> None:
    """Eleven rows for three learners are chunks of 4, 4 and 3 rows, and nothing is dropped."""
    chunks = iid_partition(np.arange(11), 3)
    assert [len(chunk) for chunk in chunks] == [4, 4, 3]
    assert sorted(np.concatenate(chunks).tolist()) == list(range(11))


def test_iid_labels_stay_with_their_rows() -> None:
    """A label given as a list element arrives in the same chunk and place as its row."""
    x = np.arange(24).reshape(12, 2)
    x_chunks, y_chunks = iid_partition(x_train=x, y_train=[f"row {i}" for i in range(12)], num_partitions=5)
    for x_chunk, y_chunk in zip(x_chunks, y_chunks, strict=True):
        assert [f"row {row[0] // 2}" for row in x_chunk] == y_chunk.tolist()
    assert x_chunks[0].shape == (3, 2)


def test_iid_shuffles_so_that_sorted_data_gives_alike_learners() -> None:
    """Of rows sorted by class, each of two learners gets all ten classes, not half of them."""
    for chunk in iid_partition(LABELS, 2):
        assert len(np.unique(chunk)) == 10


def test_iid_is_a_function_of_the_seed() -> None:
    """Two learners that call it with one seed agree on the owner of each row; another seed deals anew."""
    first, again, other = (np.concatenate(iid_partition(np.arange(100), 4, seed=s)) for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_iid_leaves_its_input_alone_and_returns_copies() -> None:
    """A learner that scales its chunk in place does not change the data set."""
    x = np.arange(6.0)
    for chunk in iid_partition(x, 2):
        chunk *= 100
    assert x.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", INDEX_PARTITIONS)
@pytest.mark.parametrize("learners", [3, 7])
@pytest.mark.parametrize("seed", [0, 1, 1990])
def test_every_row_has_exactly_one_owner(name: str, learners: int, seed: int) -> None:
    """The index arrays of all learners together are the numbers of the rows, each once."""
    parts = INDEX_PARTITIONS[name](learners, seed)
    assert len(parts) == learners
    assert all(part.dtype == np.int64 and part.ndim == 1 for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(300))


@pytest.mark.parametrize("name", INDEX_PARTITIONS)
def test_index_partitions_are_functions_of_the_seed(name: str) -> None:
    """The same seed gives the same owners; another seed other ones."""
    first, again, other = ([p.tolist() for p in INDEX_PARTITIONS[name](5, seed)] for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_dirichlet_with_a_small_alpha_is_more_skewed_than_with_a_large_one() -> None:
    """At alpha 0.05 the commonest class of a learner is most of its rows, at alpha 1000 about a tenth."""

    def commonest(alpha: float) -> float:
        parts = dirichlet_partition(LABELS, 5, alpha, seed=3)
        return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts]))

    assert commonest(0.05) > 0.4
    assert commonest(1000) < 0.15


def test_a_dirichlet_mixture_gives_all_as_many_rows_and_a_small_alpha_few_classes() -> None:
    """Sizes differ by one at most; with alpha 0.05 a learner's largest class is most of it, with 1000 a tenth."""
    for alpha, low, high in ((0.05, 0.6, 1.0), (1000.0, 0.1, 0.3)):
        parts = dirichlet_mixture_partition(LABELS, 7, alpha)
        assert {len(part) for part in parts} == {42, 43}
        largest = [max(np.bincount(LABELS[part])) / len(part) for part in parts]
        assert low <= np.median(largest) <= high


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1e6])
def test_dirichlet_keeps_its_minimum_however_skewed(alpha: float) -> None:
    """Thirty learners of ten-class data get three rows or more each, even when the draw gives most of them none."""
    parts = dirichlet_partition(LABELS, 30, alpha, min_size=3)
    assert min(map(len, parts)) >= 3
    assert sum(map(len, parts)) == 300


def test_dirichlet_may_use_up_every_row_for_the_minimum() -> None:
    """A minimum of exactly rows / learners gives everyone the same number."""
    assert [len(part) for part in dirichlet_partition(LABELS, 3, 0.1, min_size=100)] == [100, 100, 100]


@pytest.mark.parametrize(("learners", "k"), [(10, 1), (5, 2), (7, 3), (4, 10)])
def test_shards_hold_exactly_k_classes_and_lose_none(learners: int, k: int) -> None:
    """Each learner sees k classes, and together they see all ten."""
    parts = shard_partition(LABELS, learners, k)
    assert [len(np.unique(LABELS[part])) for part in parts] == [k] * learners
    assert len(np.unique(LABELS[np.concatenate(parts)])) == 10


def test_shards_take_class_names() -> None:
    """Labels may be strings; two learners with one class each split cats from dogs."""
    labels = ["cat", "dog", "cat", "dog"]
    parts = shard_partition(labels, 2, 1)
    assert sorted(sorted(part.tolist()) for part in parts) == [[0, 2], [1, 3]]


def test_shards_refuse_to_lose_a_class() -> None:
    """Three learners with two classes each cannot hold ten classes; the message says that four would do."""
    with pytest.raises(ValueError, match="raise classes_per_partition to 4"):
        shard_partition(LABELS, 3, 2)


def test_shards_refuse_a_class_with_fewer_rows_than_holders() -> None:
    """Two learners cannot share the single row of a class."""
    with pytest.raises(ValueError, match="class 1 has 1 rows for 2 learners"):
        shard_partition([0, 0, 0, 1], 2, 2)


def test_quantity_skew_gives_unequal_sizes_and_keeps_the_minimum() -> None:
    """At alpha 0.2 one of five learners holds three times the rows of another, and all have ten or more."""
    sizes = sorted(len(part) for part in quantity_skew_partition(LABELS, 5, alpha=0.2, min_size=10))
    assert sizes[0] >= 10
    assert sizes[-1] > 3 * sizes[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iid_partition(np.arange(3), 4), "3 rows cannot give 4 partitions"),
        (lambda: iid_partition(np.arange(3), 0), "num_partitions must be 1 or more"),
        (lambda: iid_partition(5, 1), "an array of rows"),
        (lambda: iid_partition(np.arange(3), 3, y_train=[1, 2]), "3 rows but y_train is 2 labels"),
        (lambda: dirichlet_partition(LABELS, 3, alpha=0), "alpha must be from"),
        (lambda: dirichlet_partition(LABELS, 3, alpha=float("nan")), "alpha must be from"),
        (lambda: dirichlet_partition(LABELS, 3, alpha=1, min_size=101), "300 rows cannot give 3 partitions 101 each"),
        (lambda: dirichlet_partition(LABELS, 3, alpha=1, min_size=-1), "min_size must be 0 or more"),
        (lambda: dirichlet_partition(LABELS.reshape(-1, 1), 3, alpha=1), r"shape \(rows,\), got \(300, 1\)"),
        (lambda: dirichlet_partition([], 3, alpha=1, min_size=0), "0 rows cannot give 3 partitions"),
        (lambda: shard_partition(LABELS, 3, 11), "from 1 to 10"),
        (lambda: shard_partition(LABELS, 3, 0), "from 1 to 10"),
        (lambda: quantity_skew_partition(LABELS, 301), "300 rows cannot give 301 partitions"),
        (lambda: quantity_skew_partition(LABELS, 3, alpha=-1), "alpha must be from"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_reason(call: Callable[[], object], message: str) -> None:
    """A wrong argument is a ValueError that names the value and the way out."""
    with pytest.raises(ValueError, match=message):
        call()
