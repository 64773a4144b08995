"""Weights of a torch module as numpy arrays and back, and a learner that needs only `train` and `evaluate`.

The order is the one of `state_dict()`. Buffers and 0-d tensors (BatchNorm's `num_batches_tracked`) are ordinary, tied
weights appear under each of their names, and bfloat16 is the dtype of that name of ml_dtypes.
"""

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from ..learner import Learner


def weights_of(model: torch.nn.Module, trainable_only: bool = False) -> list[NDArray[Any]]:
    """The tensors of the module, each (its shape,) in its own dtype: copies that later training does not change.

    With `trainable_only` those alone that require a gradient. Raises ValueError for a tensor that numpy cannot hold
    (sparse, quantised, 8-bit floats), naming it.
    """
    return [_to_array(name, tensor) for name, tensor in state_of(model, trainable_only).items()]


def load_weights(model: torch.nn.Module, weights: Sequence[NDArray[Any]], trainable_only: bool = False) -> None:
    """Copy arrays in `weights_of` order into the module, which keeps its dtypes, devices and parameter objects.

    Raises ValueError naming the tensor, before anything is changed, when the number of arrays or a shape differs.
    """
    tensors = state_of(model, trainable_only)
    if len(weights) != len(tensors):
        raise ValueError(
            f"the model has {len(tensors)} tensors, got {len(weights)}: {_first_odd_one(tensors, weights)}"
        )
    arrays = dict(zip(tensors, map(np.asarray, weights), strict=True))
    for name, array in arrays.items():
        if array.shape != tuple(tensors[name].shape):
            raise ValueError(f"tensor {name!r}: expected shape {tuple(tensors[name].shape)}, got {array.shape}")
    # Through load_state_dict rather than copy_: modules may hook it, and extra (non-tensor) state passes unchanged.
    model.load_state_dict({**model.state_dict(), **{name: _to_tensor(name, array) for name, array in arrays.items()}})


def seed_everything(seed: int) -> None:
    """Seed the global generators that training draws from: torch's on every device, numpy's and Python's.

    Whoever knows the run's configuration knows the seed: noise for privacy needs a generator of its own.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


class TorchLearner(Learner):
    """A learner around `self.model`: a subclass assigns the module and writes `train` and `evaluate`.

    With `trainable_only`, in the class or given to `__init__`, the tensors that require a gradient are all that travels
    (adapters of a large model that stays as it is and is the same everywhere): the weights are those alone.
    """

    model: torch.nn.Module
    trainable_only: bool = False

    def __init__(self, trainable_only: bool | None = None) -> None:
        """A subclass need not call it."""
        if trainable_only is not None:
            self.trainable_only = trainable_only

    @property
    def names(self) -> list[str]:  # type: ignore[override]  # a plain attribute in the base; here the model decides
        """The tensors' names in `state_dict()` order."""
        return list(state_of(self.model, self.trainable_only))

    @property
    def trainable(self) -> list[bool]:  # type: ignore[override]  # as above
        """Which tensors an optimizer may move: parameters that require a gradient, not buffers, not frozen ones."""
        moved = state_of(self.model, trainable_only=True)
        return [name in moved for name in self.names]

    def start_run(self) -> None:
        """Set the optimizers and schedulers that are attributes back to what they were before the first run."""
        states = self.__dict__.setdefault("_first_states", {})
        for name, one in vars(self).items():
            if not isinstance(one, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
                continue
            if name in states:
                one.load_state_dict(copy.deepcopy(states[name]))
            else:
                states[name] = copy.deepcopy(one.state_dict())

    def start_task(self, config: Mapping[str, Any]) -> None:
        """Seed what training draws from by `config["seed"]` (see `seed_everything`), where there is one."""
        if isinstance(seed := config.get("seed"), int):
            seed_everything(seed)

    def get_weights(self) -> list[NDArray[Any]]:
        """The model's tensors as arrays (see `weights_of`)."""
        return weights_of(self.model, self.trainable_only)

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """Put arrays into the model (see `load_weights`)."""
        load_weights(self.model, weights, self.trainable_only)


def state_of(model: torch.nn.Module, trainable_only: bool = False) -> dict[str, torch.Tensor]:
    """The state without a module's extra state, which may be any object and stays at home; or of that the parameters
    that require a gradient."""
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    if not trainable_only:
        return tensors
    moved = {name for name, one in model.named_parameters(remove_duplicate=False) if one.requires_grad}
    return {name: value for name, value in tensors.items() if name in moved}


def _to_array(name: str, tensor: torch.Tensor) -> NDArray[Any]:
    try:
        host = tensor.detach().to("cpu", copy=True).contiguous()
        if host.dtype == torch.bfloat16:  # numpy has no such type: hand over the same bits
            return np.asarray(host.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
        return np.asarray(host.numpy())
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"tensor {name!r} ({tensor.dtype}, {tensor.layout}) has no numpy form: {error}") from error


def _to_tensor(name: str, array: NDArray[Any]) -> torch.Tensor:
    """A tensor that may share the array's memory: for reading only."""
    try:
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(_plain(array).view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(_plain(array))
    except TypeError as error:
        raise ValueError(f"tensor {name!r}: an array of {array.dtype} has no torch form") from error


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array as torch takes it without a word: C order, native bytes, writable; a copy only where it is not."""
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "W"])


def _first_odd_one(tensors: dict[str, torch.Tensor], weights: Sequence[NDArray[Any]]) -> str:
    """The first place at which shapes part company, in words: what a user needs to find the missing layer."""
    for (name, tensor), array in zip(tensors.items(), weights, strict=False):
        if tuple(tensor.shape) != np.shape(array):
            return f"they differ from {name!r} on, expected shape {tuple(tensor.shape)}, got {np.shape(array)}"
    if len(weights) < len(tensors):
        return f"{list(tensors)[len(weights)]!r} is the first without an array"
    return f"array {len(tensors)} of shape {np.shape(weights[len(tensors)])} is the first without a tensor"
