"""A task done by a learner: weights in, weights or scores out. Synchronous; runs in a worker."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog

from services import messages as m
from services.errors import InvalidUpdate
from services.weights import Array, Buffer, Document, Tensor, tensors_of, wire

from ..learner import Learner
from .extra_tensors import in_order_of, split
from .kept_tensors import LAST_COUNTED, LocalTensors, OwnExtras
from .threads import tell_threads

log = structlog.get_logger("learner")
Extra = Mapping[str, Sequence[Tensor]]  # groups of tensors beside the model, by name
Frame = Callable[[Sequence[Tensor], m.Metrics, m.Scalars, Extra], list[Buffer]]  # a document of an update's parts
NOTHING: Mapping[str, Any] = {}
COUNTER = re.compile(r"_\d+\b")  # dense_1/kernel
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
    """Work of a learner in this process.

    Runs begin with the learner's own first weights, whatever runs have made of it since. Its `local` tensors never
    leave: it has its own values of them, in memory and, where there is a file for them, there too.
    """

    def __init__(self, learner: Learner, local_file: Path | None = None) -> None:
        self.learner = learner
        self._home = LocalTensors(local_file)
        self._own_extras = OwnExtras(local_file.with_suffix(".own") if local_file else None)
        self._first: list[Array] | None = None
        self._ready_for: str | None = None  # the run whose first model was set
        self._told_threads = self._told_names = False

    def initial(self) -> list[Buffer]:
        """See Work.initial. In the place of local tensors are zeros."""
        arrays = self._own()
        names, trainable = _names(self.learner), getattr(self.learner, "trainable", None)
        tensors = wire.name_tensors(arrays, names, trainable)
        local = self._local(tensors)
        blank = (one._replace(array=np.zeros_like(one.array)) if one.name in local else one for one in tensors)
        return wire.encode(tuple(blank))

    def _own(self) -> list[Array]:
        """The learner's own weights: its first, unless it keeps what runs make of them."""
        if self._first is not None and not keeps(self.learner, "weights"):
            return self._first
        given = _arrays(self.learner.get_weights(), "get_weights()")
        if keeps(self.learner, "weights"):
            return given
        self._first = [array.copy() for array in given]
        return self._first

    def train(self, model: Document, task: m.Task, frame: Frame = wire.encode) -> list[Buffer]:
        """See Work.train."""
        names, local = _names(self.learner), self._local(model.tensors)
        inputs = in_order_of(names, model.extra, local)
        config = dict(task.config)
        if inputs:
            config["inputs"] = {name: [one.array for one in group] for name, group in inputs.items()}
        if own := self._own_extras.of(task, model.extra) if inputs and LAST_COUNTED in config else {}:
            own = in_order_of(names, own, local)
            config["own"] = {name: [one.array for one in group] for name, group in own.items()}
        weights = self._weights(model, task, [])
        self._start_task(config)
        returned = self.learner.train(weights, config)
        self._told_threads = self._told_threads or tell_threads()
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
        labels = self._renamed(labels, arrays, model.tensors)
        if places := self._places(model):
            labels = [tensor.name for tensor in model.tensors]
            arrays = [array for _, array in sorted(zip(places, arrays, strict=True), key=itemgetter(0))]
        if local := self._local(model.tensors):
            pairs = list(zip(arrays, model.tensors, strict=True))
            self._home.keep(task.run_id, {old.name: array for array, old in pairs if old.name in local})
            arrays = [old.array if old.name in local else array for array, old in pairs]  # the received value goes back
        if own:
            self._own_extras.send(task, extra)
        tensors = list(tensors_of(labels, arrays, [old.trainable for old in model.tensors]))
        return frame(tensors, metrics(returned[1], "train()'s metrics"), metadata, extra)

    def evaluate(self, model: Document, task: m.Task) -> m.EvaluationResult:
        """See Work.evaluate."""
        copies = [tensor.array.copy() for tensor in model.tensors]  # torch changes read-only memory without a word
        for one in copies:
            one.flags.writeable = False
        weights, config = self._weights(model, task, copies), dict(task.config)
        self._start_task(config)
        returned = self.learner.evaluate(weights, config)
        given, told = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, NOTHING)
        scores, metadata = metrics(given, "evaluate()"), scalars(told, "evaluate()'s metadata")
        if EXAMPLES in scores:
            metadata.setdefault(EXAMPLES, scores.pop(EXAMPLES))
        return m.EvaluationResult(metrics=scores, metadata=metadata)

    def _weights(self, model: Document, task: m.Task, copies: Sequence[Array]) -> list[Array]:
        """Arrays for the learner: `copies` of the document's, or its own memory. What is local has its own value."""
        begins = self._ready_for != task.run_id
        if begins and self._first is None and not keeps(self.learner, "weights"):
            self._see_first()
        arrays = list(copies) or [tensor.array for tensor in model.tensors]
        if local := self._local(model.tensors):
            own = self._home.of(task.run_id, keeps(self.learner, "local"), lambda: self._first_local(model))
            arrays = [
                own.get(old.name, array).copy() if old.name in local else array
                for array, old in zip(arrays, model.tensors, strict=True)
            ]
        arrays = [arrays[place] for place in self._places(model)] or arrays
        if begins:
            if callable(begin := getattr(self.learner, "start_run", None)):
                begin()
            self.learner.set_weights([array.copy() for array in arrays])
            self._ready_for = task.run_id
        return arrays

    def _see_first(self) -> None:
        """Before the first model is set: the learner's own weights, which a later run may begin with."""
        try:
            self._own()
        except Exception:  # it may have none, and is not asked for them
            if getattr(self.learner, "local", ()):
                raise

    def _first_local(self, model: Document) -> dict[str, Array]:
        """The learner's own first tensors, by their names in the model."""
        own = wire.name_tensors(self._own(), _names(self.learner))
        labels = self._renamed([one.name for one in own], [one.array for one in own], model.tensors)
        return {label: one.array for label, one in zip(labels, own, strict=True)}

    def _renamed(self, names: list[str], arrays: Sequence[Array], tensors: Sequence[Tensor]) -> list[str]:
        """The names of the arrays, or those of the model's tensors where only the names differ.

        Frameworks that count what they make (Keras: dense, dense_1) name one model's tensors differently in every
        process. Where shapes differ, or names that both have stand elsewhere, the names stay, and the controller
        refuses what it does not know.
        """
        known = [tensor.name for tensor in tensors]
        alike = [array.shape for array in arrays] == [tensor.shape for tensor in tensors]
        if not alike or sorted(names) == sorted(known):
            return names
        uncounted = [[COUNTER.sub("", name) for name in each] for each in (names, known)]
        if set(names) & set(known) and uncounted[0] != uncounted[1]:
            return names
        if not self._told_names:
            self._told_names = True
            mine, theirs = next(pair for pair in zip(names, known, strict=True) if pair[0] != pair[1])
            log.warning("tensors renamed by position", mine=mine, model=theirs, why="only the names differ")
        return known

    def _start_task(self, config: dict[str, Any]) -> None:
        """Tell a learner that wants to know that a task begins."""
        if callable(start := getattr(self.learner, "start_task", None)):
            start(config)

    def _places(self, model: Document) -> list[int]:
        """Where the learner's tensors are in the model, by name, when their order is another one; else nothing."""
        names, known = _names(self.learner), [tensor.name for tensor in model.tensors]
        if names is None or names == known or sorted(names) != sorted(known):  # other names: refused with the update
            return []
        place = {name: index for index, name in enumerate(known)}
        return [place[name] for name in names]

    def _local(self, tensors: Sequence[Tensor]) -> set[str]:
        """Names of those that stay with the learner, by their name here or in the model."""
        patterns = _several(getattr(self.learner, "local", ()))
        known = [tensor.name for tensor in tensors]
        own = _names(self.learner) or known
        if sorted(own) == sorted(known) or len(own) != len(known):
            own = known
        pairs = zip(own, known, strict=True)
        return {there for here, there in pairs for pattern in patterns if _either_is(here, there, pattern)}


def _either_is(here: str, there: str, pattern: str) -> bool:
    return fnmatchcase(here, pattern) or fnmatchcase(there, pattern)


def keeps(learner: Learner, what: str) -> bool:
    """Whether the learner says that something of it goes on from run to run."""
    return what in _several(getattr(learner, "keep", ()))


def _several(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


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
