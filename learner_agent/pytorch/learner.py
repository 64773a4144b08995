"""A learner around a torch module, which needs only `train` and `evaluate`."""

from typing import Any

import torch
from numpy.typing import NDArray

from ..learner import Learner
from .weights import load_weights, state_of, weights_of


class TorchLearner(Learner):
    """A learner around `self.model`: a subclass assigns the module and writes `train` and `evaluate`."""

    model: torch.nn.Module

    @property
    def names(self) -> list[str]:  # type: ignore[override]  # a plain attribute in the base; here the model decides
        """The tensors' names in `state_dict()` order."""
        return list(state_of(self.model))

    @property
    def trainable(self) -> list[bool]:  # type: ignore[override]  # as above
        """Which tensors an optimizer may move: parameters that require a gradient, not buffers, not frozen ones."""
        moved = {n for n, p in self.model.named_parameters(remove_duplicate=False) if p.requires_grad}
        return [name in moved for name in self.names]

    def get_weights(self) -> list[NDArray[Any]]:
        """The model's tensors as arrays (see `weights_of`)."""
        return weights_of(self.model)

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """Put arrays into the model (see `load_weights`)."""
        load_weights(self.model, weights)
