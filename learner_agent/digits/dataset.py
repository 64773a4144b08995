"""The digits: 1,797 images of 8x8 pixels, carried with the package.

They are UCI's Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, 1998,
https://doi.org/10.24432/C50P49), CC BY 4.0.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.partition import iid_partition

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]  # (n, 64) pixels from 0 to 1, (n,) digits


def train_test_split(seed: int) -> tuple[Rows, Rows]:
    """All digits in seeded order: 1,437 rows to train on and 360 to evaluate on."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as packed:
        x = packed["images"].reshape(-1, 64).astype(np.float32) / 16
        y = packed["labels"].astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = np.split(order, [len(y) * 4 // 5])
    return (x[train], y[train]), (x[test], y[test])


def share(rows: Rows, index: int, num_learners: int, seed: int) -> Rows:
    """The rows of one learner."""
    x_chunks, y_chunks = iid_partition(rows[0], num_learners, rows[1], seed)
    return x_chunks[index], y_chunks[index]
