"""Inputs as a learner gets them, and the extra tensors that it gives back: in its order, checked, wherever it runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from learner_agent.agent import LearnerAtWork, LearnerProcess
from learner_agent.agent.inputs import Inputs
from services import messages as m
from services.errors import InvalidUpdate
from services.rest import Client
from services.weights import Document, Tensor, wire
from tests.learner_agent.agent.test_tasks import document, task
from tests.learner_agent.agents import AddsOne

B = np.array([30.0], np.float32)
A = np.array([1.0, 2.0], np.float32)


def model() -> Document:
    """Its order is "b", "n", "a"; "n" is no floating tensor."""
    tensors = (Tensor("b", B.copy()), Tensor("n", np.array(7)), Tensor("a", A.copy()))
    return Document(tensors, extra={"control": (Tensor("b", -B), Tensor("a", -A))})


class Doubles(AddsOne):
    """Takes the tensors as "a", "n", "b"; gives each of its control twice back, and keeps what it was given."""

    names = ("a", "n", "b")

    def get_weights(self) -> Any:
        """Zeros."""
        return [np.zeros_like(one.array) for one in sorted(model().tensors, key=lambda one: self.names.index(one.name))]

    def train(self, weights: Any, config: dict[str, Any]) -> Any:
        """The weights as they came."""
        self.config = config
        twice = {name: [2 * one for one in group] for name, group in config.get("inputs", {}).items()}
        return weights, {}, {"num_training_examples": 1, "extra": twice}


class Says(AddsOne):
    """Returns this metadata."""

    names = ("b", "n", "a")

    def __init__(self, metadata: Any) -> None:
        super().__init__()
        self.metadata = metadata

    def train(self, weights: Any, config: dict[str, Any]) -> Any:
        """The weights as they came."""
        return weights, {}, self.metadata


def test_inputs_and_extra_have_the_order_of_the_learners_tensors() -> None:
    """The learner sees "a" before "b", the controller gets "b" before "a"; the metadata is without the tensors."""
    learner = Doubles()
    update = document(LearnerAtWork(learner).train(model(), task()))
    assert [one.tolist() for one in learner.config["inputs"]["control"]] == [[-1, -2], [-30]]
    sent = update.extra["control"]
    assert [(one.name, one.dtype.name, one.array.tolist()) for one in sent] == [
        ("b", "float32", [-60]),
        ("a", "float32", [-2, -4]),
    ]
    assert update.metadata == {"num_training_examples": 1}


def test_the_same_learner_works_in_a_run_without() -> None:
    """No inputs in its config, an empty extra in its metadata, none on the wire; another `extra` is metadata."""
    learner = Doubles()
    update = document(LearnerAtWork(learner).train(Document(model().tensors), task()))
    assert "inputs" not in learner.config
    assert (update.extra, update.metadata) == ({}, {"num_training_examples": 1})
    plain = document(LearnerAtWork(Says({"extra": 5})).train(Document(model().tensors), task()))
    assert plain.metadata == {"extra": 5}


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, r"returned no metadata\['extra'\]\['control'\], which the run's algorithm needs"),
        ({"extra": 5}, r"returned no metadata\['extra'\]\['control'\]"),
        ({"extra": {"control": [A, B], "more": []}}, "an extra 'more', which this run does not ask for"),
        ({"extra": {"control": [A]}}, "returned 1 arrays as extra 'control'; its input has 2"),
    ],
)
def test_an_extra_that_is_not_what_the_run_wants_is_named(metadata: Any, says: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidUpdate, match=says):
        LearnerAtWork(Says(metadata)).train(model(), task())


def test_an_extra_in_a_run_that_wants_none_is_named() -> None:
    """It would be lost without a word."""
    with pytest.raises(InvalidUpdate, match="an extra 'control', which this run does not ask for"):
        LearnerAtWork(Says({"extra": {"control": [A]}})).train(Document(model().tensors), task())


@pytest.mark.parametrize(("local", "refused"), [("a", True), ("n", False)])
def test_local_tensors_have_no_part_in_it(local: str, refused: bool) -> None:
    """What stays at home must not leave it by another way; one that is not of the group may stay."""
    learner = Doubles()
    learner.local = local
    if not refused:
        assert document(LearnerAtWork(learner).train(model(), task())).extra
        return
    with pytest.raises(InvalidUpdate, match=r"tensor 'a' stays with this learner .* exchanges 'control' of it"):
        LearnerAtWork(learner).train(model(), task())


# ---- where they come from
class Shelf:
    """Gives documents of one number by digest, and counts how often."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def model(self, reference: m.Reference) -> memoryview:
        """As the client does."""
        self.asked.append(reference.digest[-1])
        return memoryview(b"".join(wire.encode([Tensor("a", np.array(float(reference.digest[-1])))])))


def naming(run_id: str = "run", **digits: int) -> m.Task:
    """A train task that names inputs by the last digit of their digests."""
    references = {
        name: m.Reference(digest=f"sha256-{digit:064d}", url="/v1/models/x", size=1) for name, digit in digits.items()
    }
    return task(run_id=run_id).model_copy(update={"inputs": references})


async def test_an_input_is_fetched_when_it_is_new() -> None:
    """Not again while tasks name the same one, and not twice for two names; what is no longer named is let go."""
    shelf = Shelf()
    inputs = Inputs(cast(Client, shelf))
    steps: list[tuple[dict[str, Any], list[str]]] = [
        ({"c": 1}, ["1"]),
        ({"c": 1}, ["1"]),
        ({"c": 2, "d": 2}, ["1", "2"]),
        ({"c": 2, "d": 1}, ["1", "2", "1"]),
    ]
    for given, asked in steps:
        _, found = await inputs.of(naming(**given))
        assert {name: group[0].array.item() for name, group in found.items()} == given
        assert shelf.asked == asked


async def test_a_learner_is_told_whether_its_last_update_of_the_run_was_taken() -> None:
    """Not before the first, not after one that was late, and what another run took does not count."""
    inputs = Inputs(cast(Client, Shelf()))
    told = []
    for run_id, taken in (("a", True), ("a", False), ("a", True), ("a", True), ("b", True), ("b", True)):
        given, _ = await inputs.of(naming(run_id, c=1))
        told.append((given.config["run_id"], given.config["last_update_taken"]))
        inputs.taken(task("evaluate", run_id))
        if taken:
            inputs.taken(given)
    assert told == [("a", False), ("a", True), ("a", False), ("a", True), ("b", False), ("b", True)]


async def test_a_task_without_inputs_is_left_as_it_is() -> None:
    """Its config has what its user wrote, and `round`."""
    plain = task()
    assert await Inputs(cast(Client, Shelf())).of(plain) == (plain, {})


# ---- a process of its own
def test_a_learner_in_a_process_of_its_own_gets_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and extra cross its pipes."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with contextlib.closing(LearnerProcess("tests.learner_agent.agent.test_extra_tensors:Doubles")) as there:
        theirs = document(there.train(model(), task())).extra["control"]
    ours = document(LearnerAtWork(Doubles()).train(model(), task())).extra["control"]
    assert [(t.name, t.array.tolist()) for t in theirs] == [(t.name, t.array.tolist()) for t in ours]
