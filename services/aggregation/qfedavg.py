"""QFedAvg: learners with a higher loss pull harder, so that accuracy is more even (Li et al. 2020).

"Fair Resource Allocation in Federated Learning", ICLR 2020 (arXiv:1905.10497), q-FedAvg. With F_k the loss of learner k
before it trained, L = 1 / learning_rate and D_k = L * (W - w_k), the new model is W - sum of p_k * F_k^q * D_k / sum of
p_k * h_k, where h_k = q * F_k^(q-1) * |D_k|^2 + L * F_k^q. The paper draws learners in proportion to p_k; here all that
were drawn, evenly, are weighted by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from ..errors import InvalidWeight
from ..parameters import Checked, number
from ..weights import Array
from .base import State, View
from .fedavg import counted, mean
from .pseudo_gradients import squared_norms, step

LOSS = "loss_before_training"
SMALLEST = 1e-10  # a loss below it counts as it: no power of 0


@dataclass(frozen=True)
class QFedAvg(Checked):
    """A mean in which learners with a higher loss count more (Li et al. 2020, arXiv:1905.10497).

    Weighted by the scaling factors p_k; F_k is the `loss_before_training` of the update's metrics. It moves trainable
    floating tensors, over which |D_k| runs; the others take the mean weighted by p_k. With q above 0 the step is
    shorter than FedAvg's, the more so the longer the updates are.
    """

    q: Annotated[float, number(0, meaning="how much fairness counts: 0 is FedAvg")]
    learning_rate: Annotated[float, number(above=0, meaning="the learners' own, whose inverse estimates L")]

    def check_update(self, metadata: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Raise InvalidWeight unless the update tells its loss before training."""
        _loss(metrics)

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. Updates with factor 0 are left out."""
        models, weights = counted(views, factors)
        if self.q == 0:
            return mean(models, weights, out), state
        kept = [view for view, factor in zip(views, factors, strict=True) if factor > 0]
        return step(kept, weights, self._strides(kept, weights), out), state

    def _strides(self, views: Sequence[View], weights: Sequence[float]) -> list[float]:
        """By how much of its own way each update moves the model; L cancels, and so does the largest F^q."""
        losses = [max(SMALLEST, _loss(view.metrics)) for view in views]
        pulls = [w * (loss / max(losses)) ** self.q for w, loss in zip(weights, losses, strict=True)]
        damping = self.q / self.learning_rate
        norms = squared_norms(views).tolist()
        brakes = [
            pull * (1 + damping * norm / loss) if pull > 0 else 0.0
            for pull, loss, norm in zip(pulls, losses, norms, strict=True)
        ]
        total = sum(brakes)  # may be infinite: then nothing moves
        return [pull / total for pull in pulls]


def _loss(metrics: Mapping[str, float | None]) -> float:
    value = metrics.get(LOSS)
    if value is None:
        raise InvalidWeight(
            f"the update's metrics have no {LOSS!r}: return it from train(), or choose another aggregation_rule than"
            ' "QFedAvg"',
            key=LOSS,
        )
    if not (math.isfinite(value) and value >= 0):
        raise InvalidWeight(
            f"metrics[{LOSS!r}] must be a finite number of at least 0, got {value!r}", key=LOSS, got=value
        )
    return float(value)
