"""The digits are the real ones, and dealt out whole."""

from pathlib import Path

import numpy as np
import pytest

from learner_agent.digits import share, train_test_split


def test_the_packed_data_are_scikit_learns_digits() -> None:
    """All 1,797 images and labels are there, pixel for pixel, in uint8."""
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    path = Path(__file__).parents[3] / "learner_agent" / "digits" / "digits.npz"
    with np.load(path, allow_pickle=False) as packed:
        assert packed["images"].dtype == packed["labels"].dtype == np.uint8
        np.testing.assert_array_equal(packed["images"], reference.images)
        np.testing.assert_array_equal(packed["labels"], reference.target)


def test_split_is_four_to_one_and_seeded() -> None:
    """1,797 rows are 1,437 and 360; one seed gives one split; pixels lie between 0 and 1."""
    (x, y), (x_test, y_test) = train_test_split(1990)
    assert x.shape == (1437, 64)
    assert x_test.shape == (360, 64)
    assert (x.min(), x.max()) == (0, 1)
    np.testing.assert_array_equal(y, train_test_split(1990)[0][1])
    assert set(y) == set(y_test) == set(range(10))


def test_the_shares_of_all_learners_are_the_whole() -> None:
    """Three learners hold 479 rows each, 1,437 together, and none twice."""
    rows = train_test_split(1990)[0]
    numbered = np.arange(1437, dtype=np.float32).reshape(-1, 1), rows[1]
    shares = [share(numbered, index, 3, 1990)[0] for index in range(3)]
    assert [len(x) for x in shares] == [479, 479, 479]
    assert sorted(np.concatenate(shares).ravel().tolist()) == list(range(1437))
