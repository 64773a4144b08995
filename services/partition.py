"""Splitting one data set into the private shares of many learners: alike, skewed by label, or skewed by quantity.

Every function is a pure function of its arguments: learners on different machines that call it with the same rows and
the same seed agree on who owns which row. Each row is used exactly once.
"""

import math
import operator
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]  # (rows of one learner,): positions in the data set, in shuffled order


@overload
def iid_partition(
    x_train: ArrayLike, num_partitions: int, y_train: None = None, seed: int = 1990
) -> list[NDArray[Any]]: ...
@overload
def iid_partition(
    x_train: ArrayLike, num_partitions: int, y_train: ArrayLike, seed: int = 1990
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]: ...
def iid_partition(
    x_train: ArrayLike, num_partitions: int, y_train: ArrayLike | None = None, seed: int = 1990
) -> list[NDArray[Any]] | tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Shuffle the rows and deal them out in chunks whose sizes differ by at most one.

    x_train: (n, ...) rows; y_train: (n, ...) labels, an array or a list. Returns `num_partitions` chunks of x, each
    (n // num_partitions or one more, ...), and with labels the pair of the chunks of x and the chunks of y.
    Raises ValueError when there are fewer rows than partitions, or another number of labels than of rows.
    """
    x = np.asarray(x_train)
    if x.ndim == 0:
        raise ValueError("x_train must be an array of rows, got a single value")
    _check(len(x), num_partitions, 1)
    parts = _deal(np.random.default_rng(seed).permutation(len(x)), num_partitions)
    x_chunks = [x[part] for part in parts]
    if y_train is None:
        return x_chunks
    y = np.asarray(y_train)
    if y.ndim == 0 or len(y) != len(x):
        got = "a single value" if y.ndim == 0 else f"{len(y)} labels"
        raise ValueError(f"x_train has {len(x)} rows but y_train is {got}: give one label per row")
    return x_chunks, [y[part] for part in parts]


def dirichlet_partition(
    labels: ArrayLike, num_partitions: int, alpha: float, seed: int = 1990, min_size: int = 1
) -> list[Indices]:
    """Divide each class among the learners in proportions drawn from a Dirichlet (Yurochkin et al. 2019).

    Learners differ in size, too; `dirichlet_mixture_partition` keeps them alike in that. NIID-Bench (Li et al. 2022)
    splits so. labels: (n,) class of each row. alpha > 0: 0.1 gives most learners one or two classes, 100 is close to
    iid.
    A learner that comes out below `min_size` rows is topped up from the largest one, so that a draw never fails.
    Returns one (n_k,) index array per learner. Raises ValueError when an argument is out of range, or when there are
    fewer than num_partitions * min_size rows.
    """
    classes = _one_dimensional(labels)
    _check(len(classes), num_partitions, min_size)
    _check_alpha(alpha)
    rng = np.random.default_rng(seed)
    pieces: list[list[Indices]] = [[] for _ in range(num_partitions)]
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        for mine, piece in zip(pieces, _cut(rows, num_partitions, alpha, rng), strict=True):
            mine.append(piece)
    return _topped_up([rng.permutation(np.concatenate(mine)) for mine in pieces], min_size)


def dirichlet_mixture_partition(
    labels: ArrayLike, num_partitions: int, alpha: float, seed: int = 1990
) -> list[Indices]:
    """Give each learner as many rows, of classes in proportions drawn from a Dirichlet (Hsu, Qi and Brown 2019).

    "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification" (arXiv:1909.06335):
    a learner's proportions are drawn around those of all rows. What a class no longer has is taken from its others, and
    in the end from what is left. labels: (n,) class of each row. alpha > 0: the smaller, the fewer classes. Returns one
    (n_k,) index array per learner, whose sizes differ by at most one. Raises ValueError when an argument is out of
    range, or when there are fewer rows than partitions.
    """
    classes = _one_dimensional(labels)
    _check(len(classes), num_partitions, 1)
    _check_alpha(alpha)
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(classes, return_counts=True)
    rows = [rng.permutation(np.flatnonzero(classes == name)) for name in names]
    taken = np.zeros(len(names), np.int64)
    parts = []
    for share in _deal(np.arange(len(classes)), num_partitions):
        wanted, before = rng.dirichlet(alpha * sizes / len(classes)), taken.copy()
        while missing := len(share) - int((taken - before).sum()):
            left = sizes - taken
            odds = np.where(left > 0, wanted, 0.0)
            odds = odds if odds.sum() > 0 else left.astype(float)
            taken += np.minimum(rng.multinomial(missing, odds / odds.sum()), left)
        mine = [rows[i][start:stop] for i, (start, stop) in enumerate(zip(before, taken, strict=True))]
        parts.append(rng.permutation(np.concatenate(mine)))
    return parts


def shard_partition(
    labels: ArrayLike, num_partitions: int, classes_per_partition: int, seed: int = 1990
) -> list[Indices]:
    """Give each learner rows of exactly `classes_per_partition` classes: the pathological split of McMahan et al. 2017.

    labels: (n,) class of each row. Each learner takes the classes that the fewest hold so far, ties drawn at random,
    so every class has a holder; the rows of a class are dealt evenly to its holders. Returns one (n_k,) index array
    per learner. Raises ValueError when num_partitions * classes_per_partition is below the number of classes (a class
    would be lost), when there are fewer classes than asked for, or a class has fewer rows than holders.
    """
    classes = _one_dimensional(labels)
    _check(len(classes), num_partitions, 1)
    names, sizes = np.unique(classes, return_counts=True)
    k = operator.index(classes_per_partition)
    if not 1 <= k <= len(names):
        raise ValueError(f"classes_per_partition must be from 1 to {len(names)}, the number of classes, got {k}")
    if num_partitions * k < len(names):
        raise ValueError(
            f"{num_partitions} learners with {k} classes each cannot hold all {len(names)} classes: "
            f"raise classes_per_partition to {math.ceil(len(names) / num_partitions)} or more, or add learners"
        )
    rng = np.random.default_rng(seed)
    holders: list[list[int]] = [[] for _ in names]
    for learner in range(num_partitions):
        tie_break = rng.permutation(len(names))
        for position in sorted(range(len(names)), key=lambda c: (len(holders[c]), tie_break[c]))[:k]:
            holders[position].append(learner)
    pieces: list[list[Indices]] = [[] for _ in range(num_partitions)]
    for name, size, owners in zip(names, sizes, holders, strict=True):
        if size < len(owners):
            raise ValueError(
                f"class {name} has {size} rows for {len(owners)} learners: "
                "lower classes_per_partition or num_partitions"
            )
        rows = rng.permutation(np.flatnonzero(classes == name))
        for owner, piece in zip(owners, _deal(rows, len(owners)), strict=True):
            pieces[owner].append(piece)
    return [rng.permutation(np.concatenate(mine)) for mine in pieces]


def quantity_skew_partition(
    labels: ArrayLike, num_partitions: int, alpha: float = 1.0, seed: int = 1990, min_size: int = 1
) -> list[Indices]:
    """Give the learners shares of very different size, alike in content: sizes drawn from a Dirichlet (Li et al. 2022).

    labels: (n, ...) anything with one entry per row; only its length is read. alpha > 0: the smaller, the more unequal.
    A learner below `min_size` rows is topped up from the largest. Returns one (n_k,) index array per learner.
    Raises ValueError when an argument is out of range, or when there are fewer than num_partitions * min_size rows.
    """
    rows = np.asarray(labels)
    if rows.ndim == 0:
        raise ValueError("labels must have one entry per row, got a single value")
    _check(len(rows), num_partitions, min_size)
    _check_alpha(alpha)
    rng = np.random.default_rng(seed)
    return _topped_up(_cut(rng.permutation(len(rows)), num_partitions, alpha, rng), min_size)


def _deal(rows: Indices, num_partitions: int) -> list[Indices]:
    """Cut (n,) rows into parts whose sizes differ by at most one."""
    return list(np.array_split(rows, num_partitions))


def _cut(rows: Indices, num_partitions: int, alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Cut (n,) rows into parts whose sizes follow one draw of a symmetric Dirichlet distribution."""
    proportions = rng.dirichlet(np.full(num_partitions, alpha))  # (num_partitions,), sum 1
    return list(np.split(rows, (np.cumsum(proportions)[:-1] * len(rows)).astype(np.int64)))


def _topped_up(parts: list[Indices], min_size: int) -> list[Indices]:
    """Move rows from the largest part to each one below min_size; ends because there are enough rows for all."""
    for position in range(len(parts)):
        while (missing := min_size - len(parts[position])) > 0:
            donor = max(range(len(parts)), key=lambda p: len(parts[p]))
            moved = min(missing, len(parts[donor]) - min_size)
            parts[position] = np.concatenate([parts[position], parts[donor][-moved:]])
            parts[donor] = parts[donor][:-moved]
    return parts


def _one_dimensional(labels: ArrayLike) -> NDArray[Any]:
    classes = np.asarray(labels)
    if classes.ndim != 1:
        raise ValueError(f"labels must have the shape (rows,), got {classes.shape}: one class number or name per row")
    return classes


def _check(rows: int, num_partitions: int, min_size: int) -> None:
    if operator.index(num_partitions) < 1:
        raise ValueError(f"num_partitions must be 1 or more, got {num_partitions}")
    if operator.index(min_size) < 0:
        raise ValueError(f"min_size must be 0 or more, got {min_size}")
    if rows < max(1, num_partitions * min_size):
        raise ValueError(
            f"{rows} rows cannot give {num_partitions} partitions {min_size} each: use fewer partitions or more rows"
        )


def _check_alpha(alpha: float) -> None:
    if not 1e-6 <= alpha <= 1e6:  # beyond these a draw under- or overflows
        raise ValueError(f"alpha must be from 1e-6 (most unequal) to 1e6 (equal), got {alpha}")
