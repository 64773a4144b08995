"""FedProx for torch: a learner's weights are drawn back to the global model that it was given (Li et al. 2020).

"Federated Optimization in Heterogeneous Networks", MLSys 2020 (arXiv:1812.06127): the local objective has the term
mu/2 · |w - w_global|² added to it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch


class Proximal:
    """The term of one task, for use with any loss and any torch optimizer: make it when the received weights are set.

    Add either `loss()` to the loss, or, after `backward()`, the same gradient by `add_gradient()`, which costs less.
    With mu = 0 neither changes anything, to the bit.
    """

    def __init__(self, model: torch.nn.Module, config: Mapping[str, Any]) -> None:
        """The model's trainable parameters are now the global ones. mu is `config["proximal_mu"]`, or 0.

        Raises ValueError for a mu that is no finite number of at least 0.
        """
        self.mu = _mu(config.get("proximal_mu"))
        moved = [one for one in model.parameters() if one.requires_grad] if self.mu else []
        self._pairs = [(one, one.detach().clone()) for one in moved]

    def loss(self) -> torch.Tensor:
        """The term as a scalar, at least in float32; parameters may be on several devices."""
        total = torch.zeros((), device=self._pairs[0][0].device if self._pairs else None)
        for parameter, anchor in self._pairs:
            wide = torch.promote_types(parameter.dtype, torch.float32)
            squares = (parameter.to(wide) - anchor.to(wide)).square().sum()
            total = total + squares.to(total.device)
        return self.mu / 2 * total

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add the term's gradient mu · (w - w_global) to the gradients of the parameters."""
        for parameter, anchor in self._pairs:
            term = (parameter - anchor).mul_(self.mu)
            parameter.grad = term if parameter.grad is None else term.add_(parameter.grad)


def _mu(value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"proximal_mu must be a finite number of at least 0, got {value!r}")
    return float(value)
