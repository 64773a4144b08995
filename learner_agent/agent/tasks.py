"""A task done by a learner: weights in, weights or scores out. Synchronous; runs in a worker."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import Any, Protocol

import numpy as np

from services import messages as m
from services.errors import InvalidUpdate
from services.weights import Array, Buffer, Document, Tensor, tensors_of, wire

from ..learner import Learner
from .extra_tensors import in_order_of, split

Extra = Mapping[str, Sequence[Tensor]]  # groups of tensors beside the model, by name
Frame = Callable[[Sequence[Tensor], m.Metrics, m.Scalars, Extra], list[Buffer]]  # a document of an update's parts
NOTHING: Mapping[str, Any] = {}
EXAMPLES = "num_evaluation_examples"


class Work(Protocol):
    """Does tasks. Its calls block; they raise InvalidUpdate for what a learner may not return, and what it raises.

    A task's inputs are the `extra` of the model's document.
    """

    def initial(self) -> list[Buffer]:
        """The learner's own weights as a document."""
        ...

    def train(self, model: Document, task: m.Task, frame: Frame = wire.encode) -> list[Buffer]:
        """Train from the model; the update as a document."""
        ...

    def evaluate(self, model: Document, task: m.Task) -> m.EvaluationResult:
        """Score the model."""
        ...


class LearnerAtWork:
    """Work of a learner in this process. Keeps the values of its `local` tensors between tasks."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._kept: dict[str, Array] = {}
        self._ready_for: str | None = None  # the run whose first model was set

    def initial(self) -> list[Buffer]:
        """See Work.initial."""
        arrays = _arrays(self.learner.get_weights(), "get_weights()")
        return wire.encode(wire.name_tensors(arrays, _names(self.learner), getattr(self.learner, "trainable", None)))

    def train(self, model: Document, task: m.Task, frame: Frame = wire.encode) -> list[Buffer]:
        """See Work.train."""
        inputs = in_order_of(_names(self.learner), model.extra, self._local(model))
        config = dict(task.config)
        if inputs:
            config["inputs"] = {name: [one.array for one in group] for name, group in inputs.items()}
        returned = self.learner.train(self._weights(model, task), config)
        if not isinstance(returned, tuple) or len(returned) not in (2, 3):
            raise InvalidUpdate("train() must return (weights, metrics, metadata) or (weights, metrics)")
        arrays = _arrays(returned[0], "train()")
        told, extra = split(returned[2] if len(returned) == 3 else {}, inputs, model.extra)
        metadata = scalars(told, "train()'s metadata")
        if len(arrays) != len(model.tensors):
            raise InvalidUpdate(f"train() returned {len(arrays)} arrays; the model has {len(model.tensors)} tensors")
        labels = _names(self.learner) or [tensor.name for tensor in model.tensors]
        if len(labels) != len(arrays):
            raise InvalidUpdate(f"the learner has {len(labels)} names for {len(arrays)} tensors")
        if places := self._places(model):
            labels = [tensor.name for tensor in model.tensors]
            arrays = [array for _, array in sorted(zip(places, arrays, strict=True), key=itemgetter(0))]
        if local := self._local(model):
            arrays = [
                self._held_back(old, array) if old.name in local else array
                for array, old in zip(arrays, model.tensors, strict=True)
            ]
        tensors = list(tensors_of(labels, arrays, [old.trainable for old in model.tensors]))
        return frame(tensors, metrics(returned[1], "train()'s metrics"), metadata, extra)

    def evaluate(self, model: Document, task: m.Task) -> m.EvaluationResult:
        """See Work.evaluate."""
        returned = self.learner.evaluate(self._weights(model, task), dict(task.config))
        given, told = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, NOTHING)
        scores, metadata = metrics(given, "evaluate()"), scalars(told, "evaluate()'s metadata")
        if EXAMPLES in scores:
            metadata.setdefault(EXAMPLES, scores.pop(EXAMPLES))
        return m.EvaluationResult(metrics=scores, metadata=metadata)

    def _weights(self, model: Document, task: m.Task) -> list[Array]:
        """Arrays for the learner, over the document's own memory; what is local is a copy of its local value."""
        local = self._local(model)
        arrays = [
            self._kept.get(tensor.name, tensor.array).copy() if tensor.name in local else tensor.array
            for tensor in model.tensors
        ]
        arrays = [arrays[place] for place in self._places(model)] or arrays
        if self._ready_for != task.run_id:
            self.learner.set_weights([array.copy() for array in arrays])
            self._ready_for = task.run_id
        return arrays

    def _places(self, model: Document) -> list[int]:
        """Where the learner's tensors are in the model, by name, when their order is another one; else nothing."""
        names, known = _names(self.learner), [tensor.name for tensor in model.tensors]
        if names is None or names == known or sorted(names) != sorted(known):  # other names: refused with the update
            return []
        place = {name: index for index, name in enumerate(known)}
        return [place[name] for name in names]

    def _held_back(self, received: Tensor, trained: Array) -> Array:
        """What is sent of a local tensor: it stays here, and the received value goes back."""
        self._kept[received.name] = trained.copy()
        return received.array

    def _local(self, model: Document) -> set[str]:
        """Names of the model's tensors that stay with the learner."""
        given = getattr(self.learner, "local", ())
        patterns = [given] if isinstance(given, str) else list(given)
        return {tensor.name for pattern in patterns for tensor in model.tensors if fnmatchcase(tensor.name, pattern)}


def _names(learner: Learner) -> list[str] | None:
    names = getattr(learner, "names", None)  # absent where the four methods are all that there is
    return None if names is None else list(names)


def _arrays(weights: Any, source: str) -> list[Array]:
    if isinstance(weights, np.ndarray) or not isinstance(weights, Sequence):
        raise InvalidUpdate(f"{source} must give a list of numpy arrays, not {type(weights).__name__}")
    arrays = [np.asarray(array) for array in weights]
    for index, array in enumerate(arrays):
        if array.dtype == object:
            raise InvalidUpdate(f"{source}: item {index} is not a numeric array but {type(weights[index]).__name__}")
    return arrays


def metrics(given: Any, source: str) -> m.Metrics:
    """Numbers as the wire carries them: finite floats, NaN and infinity as null; numpy scalars are converted."""
    if not isinstance(given, Mapping):
        raise InvalidUpdate(f"{source} must be a dict of numbers, not {type(given).__name__}")
    result: m.Metrics = {}
    for name, value in given.items():
        number = _plain(value)
        if number is not None and not isinstance(number, numbers.Real):
            raise InvalidUpdate(f"{source}: {name!r} is not a number but {type(value).__name__}")
        result[str(name)] = float(number) if number is not None and math.isfinite(number) else None
    return result


def scalars(given: Any, source: str) -> m.Scalars:
    """Text, numbers and truth values; numpy scalars are converted."""
    if not isinstance(given, Mapping):
        raise InvalidUpdate(f"{source} must be a dict, not {type(given).__name__}")
    result: m.Scalars = {}
    for name, value in given.items():
        plain = _plain(value)
        if isinstance(plain, float) and not math.isfinite(plain):
            plain = None
        if plain is not None and not isinstance(plain, bool | int | float | str):
            raise InvalidUpdate(f"{source}: {name!r} is neither text nor a number but {type(value).__name__}")
        result[str(name)] = plain
    return result


def _plain(value: Any) -> Any:
    """Python's own scalar of a numpy or torch one; anything else as it is."""
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # has none, or holds several values
        return value
