"""`Learner`: what a user implements. Four methods; nothing of the network shows in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.weights import Array

Weights = list[Array]
EXTRA = "extra"  # the key of train()'s metadata under which tensors beside the model go back


class Learner:
    """Holds private data and a model. A subclass need not call `super().__init__()`.

    `local` names tensors that stay at home (fnmatch patterns; FedBN, Li et al. 2021; FedPer, Arivazhagan et al. 2019):
    they have this learner's own values, at first those of `get_weights()`, and nobody else sees them: the initial model
    has zeros there, and what was received is sent back. It needs `names`.

    Every run begins anew: with the learner's own first weights where it is asked for them, and with its own first
    values of what is `local`. `keep` names what goes on from run to run instead: "weights", "local" or both.
    """

    keep: str | Sequence[str] = ()
    local: str | Sequence[str] = ()
    names: Sequence[str] | None = None  # of the tensors, in get_weights() order; None: "0", "1", …
    trainable: Sequence[bool] | None = None  # per tensor; None: all

    def get_weights(self) -> Weights:
        """The model's tensors, always in the same order. Asked before the first model is set: one learner's are the
        initial model."""
        raise NotImplementedError(f"{type(self).__name__} needs get_weights()")

    def start_run(self) -> None:
        """A run begins: let go of what the one before has left, such as an optimizer's momentum. Called before
        `set_weights`."""

    def start_task(self, config: Mapping[str, Any]) -> None:
        """A train or evaluate task of this `config` begins. Called before `train` and `evaluate`."""

    def set_weights(self, weights: Weights) -> None:
        """Take these tensors as the model. Called once per run, with the first model that arrives."""
        raise NotImplementedError(f"{type(self).__name__} needs set_weights()")

    def train(self, weights: Weights, config: dict[str, Any]) -> tuple[Any, ...]:
        """Train from `weights`, which are yours to change, on this learner's data.

        Return `(weights, metrics, metadata)` or `(weights, metrics)`.

        `config` holds the run's `train` parameters, `round`, and `seed`, a whole number below 2**32 that follows from
        the run's seed, the round and this learner's name: draw by it, and a run made again is the same. `metrics` are
        numbers; `metadata` carries `num_training_examples` and the other counts that the run's scaling factor reads.
        Where the run's algorithm gives `config["inputs"]`, lists of arrays by name, it wants such lists back as
        `metadata["extra"]`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs train()")

    def evaluate(self, weights: Weights, config: dict[str, Any]) -> Mapping[str, Any]:
        """Score `weights`, which are read-only, on this learner's data; return metrics.

        `num_evaluation_examples` among them weights them.
        """
        raise NotImplementedError(f"{type(self).__name__} needs evaluate()")
