"""The perceptron 64-64-10: its initial weights, its loss and the loss's gradients, in numpy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def initial_weights(seed: int) -> list[Floats]:
    """Weights of He et al. 2015 (normal, variance 2 / inputs), (64, 64) and (64, 10), each with a bias of zeros."""
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(0, (2 / 64) ** 0.5, (64, outputs)), np.zeros(outputs)) for outputs in (64, 10)]
    return [tensor.astype(np.float32) for layer in layers for tensor in layer]


def loss_and_gradients(weights: Sequence[Floats], x: Floats, y: NDArray[np.int64]) -> tuple[float, int, list[Floats]]:
    """Mean softmax cross-entropy of a batch, its number of right answers, and the loss's gradient for each tensor.

    weights: (inputs, hidden), (hidden,), (hidden, classes), (classes,); x: (n, inputs); y: (n,) class numbers.
    """
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1 + b1, 0)  # (n, hidden), ReLU
    logits = hidden @ w2 + b2  # (n, classes)
    shifted = logits - logits.max(axis=1, keepdims=True)  # the largest becomes 0: exp cannot overflow
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    here = np.arange(len(y)), y
    d_logits = np.exp(log_p)
    d_logits[here] -= 1
    d_logits /= len(y)
    d_hidden = (d_logits @ w2.T) * (hidden > 0)
    gradients = [x.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_logits, d_logits.sum(axis=0)]
    return float(-log_p[here].mean()), int((logits.argmax(axis=1) == y).sum()), gradients
