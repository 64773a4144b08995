"""SCAFFOLD for torch: the gradients of any module are corrected by control variates (see control.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from ..control import Control
from .learner import state_of, weights_of


class Scaffold:
    """The learner's side for a module: make it with the learner, and keep it.

    In each train task: `begin` when the received weights are set, `add_gradient()` after each `backward()` and before
    the step of a plain `torch.optim.SGD`, and `end`, whose result is to be part of the metadata. Nothing changes in a
    run whose algorithm is not SCAFFOLD.
    """

    def __init__(self) -> None:
        self._control = Control()
        self._model: torch.nn.Module | None = None
        self._pairs: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._steps = 0

    def begin(self, model: torch.nn.Module, config: Mapping[str, Any]) -> None:
        """The model's trainable parameters are now the global ones. Raises ValueError (see Control.begin)."""
        self._model, self._steps = model, 0
        corrections = self._control.begin(_weights(model), config)
        pairs = zip(_moved(model).values(), corrections, strict=False)
        once = {id(one): (one, array) for one, array in pairs}  # a tied parameter has several names
        self._pairs = [(one, torch.from_numpy(array).to(one)) for one, array in once.values()]

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add c - c_i to the gradients of the parameters, and count a step."""
        self._steps += 1
        for parameter, correction in self._pairs:
            parameter.grad = correction.clone() if parameter.grad is None else parameter.grad.add_(correction)

    def end(self, learning_rate: float) -> dict[str, Any]:
        """What train() adds to its metadata, after steps of that rate. Raises ValueError (see Control.end)."""
        if self._model is None:
            raise ValueError("begin() was not called")
        return self._control.end(_weights(self._model), self._steps, learning_rate)


def _moved(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trainable floating parameters, in the order of `state_dict()`, under each of their names."""
    named = dict(model.named_parameters(remove_duplicate=False))
    found = {name: named[name] for name in model.state_dict() if name in named}
    return {name: one for name, one in found.items() if one.requires_grad and one.is_floating_point()}


def _weights(model: torch.nn.Module) -> list[NDArray[Any]]:
    moved = _moved(model)
    return [array for name, array in zip(state_of(model), weights_of(model), strict=True) if name in moved]
