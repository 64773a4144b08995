"""SCAFFOLD for any framework: a learner's control variate, in numpy (Karimireddy et al. 2020, arXiv:1910.06378).

"Stochastic Controlled Averaging for Federated Learning", ICML 2020, algorithm 1 with option II: gradients are corrected
by c - c_i, and after K steps of rate η from x to y the learner's own control is c_i⁺ = c_i - c + (x - y) / (K·η). This
holds for plain gradient descent, where y is x less η times the sum of the corrected gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from services.weights import Array

from .learner import EXTRA

NAME = "control"  # of the input and of the extra: see services/algorithms.py


class Control:
    """The control variate c_i of one learner: make it with the learner and keep it. It is 0 at the start of each run.

    It is what the controller knows of it: what was sent but not counted (a round closed without it) is no part of it.
    The agent keeps it, also over a restart, and gives it with each task (`config["own"]`); to a program that has no
    agent `config["last_update_taken"]` says whether the last change counts.
    """

    def __init__(self) -> None:
        self._run: Any = None
        self._own: list[Array] = []  # c_i, float64
        self._given: list[Array] = []  # c, float64; empty in a run without
        self._weights: list[Array] = []  # x
        self._sent: list[Array] = []  # c_i⁺ - c_i of the last task

    def begin(self, weights: Sequence[Array], config: Mapping[str, Any]) -> list[Array]:
        """Begin a train task: the corrections c - c_i, to be added to the gradients of each batch.

        `weights` are the model's trainable floating tensors as they came, each (its shape,). Nothing comes back when
        the run's algorithm is not SCAFFOLD. Raises ValueError when the control has other shapes than the weights.
        """
        self._given = [one.astype(np.float64) for one in config.get("inputs", {}).get(NAME, [])]
        if not self._given:
            return []
        shapes, expected = [one.shape for one in self._given], [one.shape for one in weights]
        if shapes != expected:
            raise ValueError(
                f"the control has shapes {shapes}, the trainable floating tensors {expected}: is Learner.trainable set?"
            )
        if own := config.get("own", {}).get(NAME):
            self._own = [one.astype(np.float64) for one in own]
        elif config.get("run_id") != self._run or not self._own:
            self._run, self._own = config.get("run_id"), [np.zeros(one.shape) for one in self._given]
        elif config.get("last_update_taken", True):
            for own, change in zip(self._own, self._sent, strict=False):
                own += change.astype(np.float64)
        self._sent, self._weights = [], [one.copy() for one in weights]
        return [np.asarray(c - own) for c, own in zip(self._given, self._own, strict=True)]

    def end(self, weights: Sequence[Array], steps: int, learning_rate: float) -> dict[str, Any]:
        """End it: what train() adds to its metadata, {} in a run without SCAFFOLD.

        `weights` are now those after so many `steps` of that rate. Raises ValueError for a rate that is not above 0.
        """
        if not self._given:
            return {}
        if not learning_rate > 0:
            raise ValueError(f"SCAFFOLD needs a learning rate above 0, got {learning_rate!r}")
        triples = zip(self._given, self._weights, weights, strict=True)
        self._sent = [_change(c, old, new, steps * learning_rate) for c, old, new in triples]
        return {EXTRA: {NAME: self._sent}}


def _change(given: Array, old: Array, new: Array, way: float) -> Array:
    """c_i⁺ - c_i = (x - y) / (K·η) - c, in the tensor's own dtype; 0 after no step."""
    made = (old.astype(np.float64) - new.astype(np.float64)) / way - given if way else np.zeros(given.shape)
    return np.asarray(made).astype(old.dtype)
