"""A learner that trains the perceptron on its share of the digits, and a factory that reads the environment."""

import hashlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import Learner, progress
from .dataset import share, train_test_split
from .perceptron import initial_weights, loss_and_gradients


class DigitsLearner(Learner):
    """One of `num_learners` learners (`index` from 0): its share of the digits and a perceptron 64-64-10.

    A fifth of the digits is kept for evaluation, whoever asks with the same seed. `train` reads from its config:
    `epochs` (3), `batch_size` (32), `learning_rate` (0.1), `momentum` (0.9), and `num_local_updates`, which replaces
    the epochs by a number of batches. Raises ValueError for an index out of range.
    """

    names = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")

    def __init__(self, index: int, num_learners: int, seed: int = 1990) -> None:
        if not 0 <= index < num_learners:
            raise ValueError(f"index must be from 0 to {num_learners - 1} with {num_learners} learners, got {index}")
        train_rows, test_rows = train_test_split(seed)
        self._train = share(train_rows, index, num_learners, seed)
        self._test = share(test_rows, index, num_learners, seed)
        self._weights = initial_weights(seed)
        self._velocity = [np.zeros_like(w) for w in self._weights]
        self._seed = (seed, index)

    def start_run(self) -> None:
        """See Learner.start_run: without the velocity of the run before."""
        self._velocity = [np.zeros_like(w) for w in self._weights]

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of the (64, 64), (64,), (64, 10) and (10,) float32 tensors."""
        return [w.copy() for w in self._weights]

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """Take other values for the four tensors; raises ValueError for another count or shape."""
        if len(weights) != len(self.names):
            raise ValueError(f"expected the {len(self.names)} tensors {', '.join(self.names)}, got {len(weights)}")
        for name, mine, given in zip(self.names, self._weights, weights, strict=True):
            if mine.shape != np.shape(given):
                raise ValueError(f"tensor {name!r}: expected shape {mine.shape}, got {np.shape(given)}")
        self._weights = [np.array(w, np.float32) for w in weights]

    def train(
        self, weights: list[NDArray[Any]], config: Mapping[str, Any]
    ) -> tuple[list[NDArray[Any]], dict[str, float], dict[str, float]]:
        """Stochastic gradient descent with momentum on this learner's rows; the velocity outlives the round."""
        self.set_weights(weights)
        x, y = self._train
        batch_size = _positive(config, "batch_size", 32)
        learning_rate, momentum = float(config.get("learning_rate", 0.1)), float(config.get("momentum", 0.9))
        batches_per_epoch = -(-len(y) // batch_size)
        batches = _positive(config, "num_local_updates", _positive(config, "epochs", 3) * batches_per_epoch)
        shuffle = np.random.default_rng((*self._seed, int(config.get("round", 0))))
        losses, correct, seen = 0.0, 0, 0
        started = time.perf_counter()
        for batch in range(batches):
            epoch, place = divmod(batch, batches_per_epoch)
            if place == 0:
                order = shuffle.permutation(len(y))
            rows = order[place * batch_size : (place + 1) * batch_size]
            loss, hits, gradients = loss_and_gradients(self._weights, x[rows], y[rows])
            for weight, velocity, gradient in zip(self._weights, self._velocity, gradients, strict=True):
                velocity *= momentum
                velocity += gradient
                weight -= learning_rate * velocity
            losses, correct, seen = losses + loss * len(rows), correct + hits, seen + len(rows)
            progress(epoch=epoch + 1, batch=place + 1, loss=loss)
        per_batch = (time.perf_counter() - started) * 1000 / batches
        metadata = {
            "num_training_examples": len(y),
            "num_completed_batches": batches,
            "processing_ms_per_batch": per_batch,
            "processing_ms_per_epoch": per_batch * batches_per_epoch,
        }
        return self.get_weights(), {"loss": losses / seen, "accuracy": correct / seen}, metadata

    def evaluate(self, weights: list[NDArray[Any]], config: Mapping[str, Any]) -> dict[str, float]:
        """Mean loss and accuracy of the given weights on this learner's share of the digits kept for evaluation."""
        self.set_weights(weights)
        loss, hits, _ = loss_and_gradients(self._weights, *self._test)
        examples = len(self._test[1])
        return {"loss": loss, "accuracy": hits / examples, "num_evaluation_examples": examples}


def digits_learner() -> DigitsLearner:
    """The learner that the environment asks for: share METIS_SHARD (from 0) of METIS_NUM_SHARDS (3).

    Without METIS_SHARD the share follows from the host's name and the process number. Raises ValueError for a value
    that is no such number.
    """
    shards = _positive(os.environ, "METIS_NUM_SHARDS", 3)
    process = f"{socket.gethostname()}:{os.getpid()}".encode()
    shard = os.environ.get("METIS_SHARD") or str(int.from_bytes(hashlib.sha256(process).digest()[:8]) % shards)
    if not shard.isdecimal() or int(shard) >= shards:
        raise ValueError(f"METIS_SHARD must be a whole number from 0 to {shards - 1}, got {shard!r}")
    return DigitsLearner(int(shard), shards)


def _positive(values: Mapping[str, Any], key: str, default: int) -> int:
    given = values.get(key)
    if given is None or given == "":
        return default
    try:
        number = int(given)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != float(given):
        raise ValueError(f"{key} must be a whole number of 1 or more, got {given!r}")
    return number
