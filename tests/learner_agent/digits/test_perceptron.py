"""The perceptron: its loss and gradients are right."""

import numpy as np
import pytest

from learner_agent.digits import initial_weights, loss_and_gradients


def test_loss_of_a_network_of_zeros_is_log_ten() -> None:
    """With equal scores for ten classes the cross-entropy is ln 10 and the gradient of the last bias p - 1 = -0.9."""
    weights = [np.zeros((64, 64)), np.zeros(64), np.zeros((64, 10)), np.zeros(10)]
    loss, _, gradients = loss_and_gradients(weights, np.ones((1, 64)), np.array([3]))
    assert loss == pytest.approx(np.log(10))
    np.testing.assert_allclose(gradients[3], [0.1, 0.1, 0.1, -0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])


def test_large_scores_do_not_overflow() -> None:
    """A score of 10,000 for the right class is a loss of zero, not NaN."""
    weights = [np.eye(2), np.zeros(2), np.eye(2) * 1e4, np.zeros(2)]
    loss, hits, _ = loss_and_gradients(weights, np.array([[1.0, 0.0]]), np.array([0]))
    assert (loss, hits) == (0.0, 1)


def test_gradients_equal_finite_differences() -> None:
    """Each of the 4*5+5+5*3+3 derivatives equals (f(w+h) - f(w-h)) / 2h on a small network in float64."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((4, 5), (5,), (5, 3), (3,))]
    x, y, h = rng.normal(size=(7, 4)), rng.integers(0, 3, 7), 1e-6
    _, _, gradients = loss_and_gradients(weights, x, y)
    for tensor, gradient in zip(weights, gradients, strict=True):
        for place in np.ndindex(tensor.shape):
            kept = tensor[place]
            tensor[place] = kept + h
            above, _, _ = loss_and_gradients(weights, x, y)
            tensor[place] = kept - h
            below, _, _ = loss_and_gradients(weights, x, y)
            tensor[place] = kept
            assert gradient[place] == pytest.approx((above - below) / (2 * h), abs=1e-8)


def test_he_initialisation() -> None:
    """Weights have variance 2/64, biases are zero, all float32, and the seed decides."""
    weights = initial_weights(5)
    assert [w.shape for w in weights] == [(64, 64), (64,), (64, 10), (10,)]
    assert {str(w.dtype) for w in weights} == {"float32"}
    assert weights[0].std() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert not weights[1].any()
    np.testing.assert_array_equal(weights[0], initial_weights(5)[0])
    assert (weights[0] != initial_weights(6)[0]).any()
