"""Groups of tensors beside the model: given to a learner, and taken from it, in the order of its own tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from services.errors import InvalidUpdate
from services.weights import Tensor

from ..learner import EXTRA

Groups = Mapping[str, Sequence[Tensor]]


def in_order_of(names: Sequence[str] | None, groups: Groups, local: Collection[str]) -> dict[str, list[Tensor]]:
    """The groups, each in the order of the learner's `names` as far as it has them.

    Raises InvalidUpdate when a tensor of a group is `local`: what says how it was trained would not stay at home.
    """
    place = {name: index for index, name in enumerate(names or ())}
    for label, group in groups.items():
        if kept := next((one.name for one in group if one.name in local), None):
            raise InvalidUpdate(
                f"tensor {kept!r} stays with this learner (Learner.local), and this run exchanges {label!r} of it:"
                " train it without an algorithm that does",
                tensor=kept,
                extra=label,
            )
    return {label: sorted(group, key=lambda one: place.get(one.name, -1)) for label, group in groups.items()}


def split(metadata: Any, given: Groups, wanted: Groups) -> tuple[Any, dict[str, list[Tensor]]]:
    """train()'s metadata without its `extra`, and that as tensors in the order that is `wanted`, not that of `given`.

    Raises InvalidUpdate, naming the group, for groups that are not wanted, missing, or of another length.
    """
    returned = metadata.get(EXTRA) if isinstance(metadata, Mapping) else None
    if isinstance(returned, Mapping):
        metadata = {key: value for key, value in metadata.items() if key != EXTRA}
    elif wanted:
        returned = {}
    else:  # an ordinary number or text of that name
        return metadata, {}
    for label in (*wanted, *returned):
        if label not in returned:
            raise InvalidUpdate(
                f"train() returned no metadata[{EXTRA!r}][{label!r}], which the run's algorithm needs of every learner",
                extra=label,
            )
        if label not in wanted:
            raise InvalidUpdate(f"train() returned an extra {label!r}, which this run does not ask for", extra=label)
    made: dict[str, list[Tensor]] = {}
    for label, group in given.items():
        arrays = [np.asarray(array) for array in returned[label]]
        if len(arrays) != len(group):
            raise InvalidUpdate(
                f"train() returned {len(arrays)} arrays as extra {label!r}; its input has {len(group)}",
                extra=label,
                expected=len(group),
                got=len(arrays),
            )
        by_name = {one.name: Tensor(one.name, array) for one, array in zip(group, arrays, strict=True)}
        made[label] = [by_name[one.name] for one in wanted[label]]
    return metadata, made
