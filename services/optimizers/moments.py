"""Moving a model along its pseudo-gradient, a block at a time, with moments that are kept from step to step.

The pseudo-gradient is the aggregate minus the model (Reddi et al. 2021, arXiv:2003.00295, where it is Delta). Trainable
floating tensors move; the others take the aggregated value, since an adaptive step could make a BatchNorm's variance
negative.

A moment is an array for each tensor that moves: float64 for one of float64, float32 for shorter ones. Arithmetic is
float64, so a moment is as exact as the tensor that it moves, and takes twice the memory only where the tensor does.
The state is a flat map of these arrays, `<moment>.<index of the tensor>`. It is made anew in each step: an aggregation
that fails leaves the last one as it was. A moment or a step that overflows fails it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..aggregation import State, trained
from ..errors import AggregationFailed
from ..weights import Array, Block, blocks, each, fit_dtype, gather, holds, scatter

ADVICE = "clip what learners send (transforms: ClipNorm), or find whose update is so far from the model"
Change = Callable[[Array, Mapping[str, Array]], Array]  # pseudo-gradient and moments (changed in place) to the step


def move(
    model: Sequence[Array],
    aggregate: list[Array],
    trainable: Sequence[bool],
    state: State | None,
    moments: Mapping[str, float],
    change: Change,
) -> tuple[list[Array], State]:
    """The aggregate, its trainable floating tensors moved by the step that `change` makes of them; and the new state.

    `moments` are the names of the moments and the value that each begins with; they are rows of a block in float64, as
    the pseudo-gradient is.
    """
    moving = trained(aggregate, trainable)
    before, made = [model[i] for i in moving], [aggregate[i] for i in moving]
    kept = {name: [np.empty(array.shape, _dtype(array)) for array in made] for name in moments}
    last = {name: [state[f"{name}.{i}"] for i in moving] for name in moments} if state else None

    def work(block: Block) -> None:
        old, delta = np.empty(block.size), np.empty(block.size)
        rows = {name: np.full(block.size, begins, np.float64) for name, begins in moments.items()}
        gather(before, block, old)
        gather(made, block, delta)
        delta -= old
        if last is not None:
            for name, row in rows.items():
                gather(last[name], block, row)
        old += change(delta, rows)
        for name, row in rows.items():
            if not holds(kept[name][block.first].dtype, row):
                raise AggregationFailed(f"the server optimizer's moment {name!r} overflows; {ADVICE}")
        if made[block.first].dtype == np.float64 and not holds(np.float64, old):  # shorter ones become infinite
            raise AggregationFailed(f"the server optimizer's step overflows; {ADVICE}")
        fit_dtype(old, made[block.first].dtype)
        scatter(old, block, made)
        for name, row in rows.items():
            scatter(row, block, kept[name])

    each(blocks(made), lambda: work)
    return aggregate, {f"{name}.{i}": array for name in moments for i, array in zip(moving, kept[name], strict=True)}


def _dtype(array: Array) -> type[np.floating]:
    return np.float64 if array.dtype == np.float64 else np.float32
