"""What a learner's methods get and may return, and what goes over the wire of it."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from learner_agent import Learner
from learner_agent.agent import LearnerAtWork
from services import messages as m
from services.errors import InvalidUpdate
from services.weights import Document, Tensor, wire
from tests.learner_agent.agents import AddsOne


def model() -> Document:
    """A model as it arrives: its memory is the learner's to change when it trains."""
    return Document((Tensor("a", np.array([1, 2], np.float32)), Tensor("b", np.array(3, np.float32), trainable=False)))


def task(kind: str = "train", run_id: str = "run", **config: Any) -> m.Task:
    """A task of round 1."""
    return m.Task(
        id="task",
        kind=kind,
        run_id=run_id,
        round=1,
        model=None,
        result=m.ResultTarget(url="/v1/tasks/task/result"),
        config={"round": 1, **config},
        expires_in_s=60,
        heartbeat_s=10,
    )


def document(parts: Any) -> Document:
    """What the other side decodes."""
    return wire.decode(b"".join(parts))


class Returns(AddsOne):
    """Returns from train (or evaluate) what it was made with."""

    def __init__(self, returned: Any) -> None:
        super().__init__()
        self.returned = returned

    def train(self, weights: Any, config: dict[str, Any]) -> Any:
        """The same, whatever it is."""
        return self.returned

    def evaluate(self, weights: Any, config: dict[str, Any]) -> Any:
        """The same, whatever it is."""
        return self.returned


GOOD = [np.zeros(2, np.float32), np.zeros((), np.float32)]


def trained(returned: Any) -> Document:
    """The update of a train() that returned this."""
    return document(LearnerAtWork(Returns(returned)).train(model(), task()))


# ---- train
def test_an_update_carries_weights_metrics_and_metadata_by_name() -> None:
    """Each tensor plus one, under its name, and whether it is trainable as the model says."""
    update = document(LearnerAtWork(AddsOne()).train(model(), task()))
    assert [(t.name, t.array.tolist(), t.array.dtype.name, t.trainable) for t in update.tensors] == [
        ("a", [2.0, 3.0], "float32", True),
        ("b", 4.0, "float32", False),
    ]
    assert (update.metrics, update.metadata) == ({"loss": 0.5}, {"num_training_examples": 10})


def test_metadata_may_be_left_out() -> None:
    """`(weights, metrics)` is enough."""
    update = trained((GOOD, {"loss": 1}))
    assert (update.metrics, update.metadata) == ({"loss": 1.0}, {})


def test_numpy_scalars_become_plain_ones() -> None:
    """float32, int64, 0-d and one-element arrays, and bool, in metrics and in metadata."""
    metrics = {"loss": np.float32(0.5), "hits": np.int64(3), "zero_d": np.array(2.0), "one": np.array([4.0])}
    update = trained((GOOD, metrics, {"n": np.int64(7), "rate": np.float64(0.5), "done": np.bool_(True), "who": "x"}))
    assert update.metrics == {"loss": 0.5, "hits": 3.0, "zero_d": 2.0, "one": 4.0}
    assert update.metadata == {"n": 7, "rate": 0.5, "done": True, "who": "x"}


def test_torch_scalars_become_plain_ones() -> None:
    """A loss that is still a tensor, with its gradient, is a number."""
    torch = pytest.importorskip("torch")
    loss = torch.tensor(0.25, requires_grad=True) * 2
    update = trained((GOOD, {"loss": loss}, {"n": torch.tensor(7)}))
    assert (update.metrics, update.metadata) == ({"loss": 0.5}, {"n": 7})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), None])
def test_a_metric_that_is_no_finite_number_becomes_null(value: Any) -> None:
    """NaN, infinity and None are null, in metrics and in metadata."""
    update = trained((GOOD, {"loss": value}, {"note": value}))
    assert (update.metrics, update.metadata) == ({"loss": None}, {"note": None})


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (GOOD, r"train\(\) must return \(weights, metrics, metadata\) or \(weights, metrics\)"),
        ((GOOD,), "must return"),
        ((GOOD, {}, {}, {}), "must return"),
        (None, "must return"),
        ((GOOD[:1], {}), r"train\(\) returned 1 arrays; the model has 2 tensors"),
        ((np.zeros(2), {}), r"train\(\) must give a list of numpy arrays, not ndarray"),
        (({"a": GOOD[0]}, {}), "list of numpy arrays, not dict"),
        (([GOOD[0], object()], {}), r"train\(\): item 1 is not a numeric array but object"),
        (([GOOD[0], "text"], {}), "tensor 'b' has dtype <U4"),
        ((GOOD, [0.5]), r"train\(\)'s metrics must be a dict of numbers, not list"),
        ((GOOD, {"loss": "low"}), r"train\(\)'s metrics: 'loss' is not a number but str"),
        ((GOOD, {"loss": np.zeros(2)}), "'loss' is not a number but ndarray"),
        ((GOOD, {}, 10), r"train\(\)'s metadata must be a dict, not int"),
        ((GOOD, {}, {"n": [1]}), r"train\(\)'s metadata: 'n' is neither text nor a number but list"),
    ],
)
def test_what_train_may_not_return_is_named(returned: Any, says: str) -> None:
    """The message says what came and what is wanted."""
    with pytest.raises(InvalidUpdate, match=says):
        LearnerAtWork(Returns(returned)).train(model(), task())


class Turned(AddsOne):
    """Has the model's two tensors in another order; 10 more for its own second one."""

    names = ("b", "a")
    local = ()  # names that stay at home

    def get_weights(self) -> Any:
        """Its own "b" is 3."""
        return [np.array(3, np.float32), np.zeros(2, np.float32)]

    def train(self, weights: Any, config: dict[str, Any]) -> Any:
        """See above."""
        return [weights[0] + 1, weights[1] + 10], {"loss": 0.5}, {}

    def evaluate(self, weights: Any, config: dict[str, Any]) -> Any:
        """Both tensors' first values."""
        return {"b": weights[0].item(), "a": weights[1][0]}


def test_a_learner_gets_the_tensors_in_the_order_of_its_names() -> None:
    """A model from a file has the file's order: each method sees the learner's own, the update is in the model's."""
    learner = Turned()
    work = LearnerAtWork(learner)
    update = document(work.train(model(), task()))
    assert [(t.name, t.array.tolist(), t.trainable) for t in update.tensors] == [
        ("a", [11.0, 12.0], True),
        ("b", 4.0, False),
    ]
    assert [array.tolist() for array in learner.given[0]] == [3.0, [1.0, 2.0]]
    assert work.evaluate(model(), task("evaluate")).metrics == {"b": 3.0, "a": 1.0}


def test_what_stays_at_home_is_found_by_name_in_any_order() -> None:
    """The local tensor goes back as it was received, and is trained on from where it was."""
    learner = Turned()
    learner.local = ("b",)  # type: ignore[assignment]
    work = LearnerAtWork(learner)
    for _ in range(2):
        update = document(work.train(model(), task()))
        assert [tensor.array.tolist() for tensor in update.tensors] == [[11.0, 12.0], 3.0]
    assert work.evaluate(model(), task("evaluate")).metrics == {"b": 5.0, "a": 1.0}


def test_other_names_than_the_models_change_no_order() -> None:
    """They are sent as they are, and the controller says which one it did not expect."""
    learner = Turned()
    learner.names = ("b", "c")
    update = document(LearnerAtWork(learner).train(model(), task()))
    assert [(t.name, t.array.tolist()) for t in update.tensors] == [("b", [2.0, 3.0]), ("c", 13.0)]
    assert [array.tolist() for array in learner.given[0]] == [[1.0, 2.0], 3.0]


@pytest.mark.parametrize(
    ("names", "known"),
    [(("x", "y"), ("a", "b")), (("dense_1/kernel", "dense_2/bias"), ("dense/kernel", "dense_1/bias"))],
)
def test_names_that_a_framework_counts_are_those_of_the_model_by_position(names: Any, known: Any) -> None:
    """Keras names one model's tensors differently in every process. It is told once; other shapes stay as they are."""
    learner = AddsOne()
    learner.names = names
    work = LearnerAtWork(learner)
    there = Document(tuple(one._replace(name=name) for one, name in zip(model().tensors, known, strict=True)))
    with structlog.testing.capture_logs() as told:
        for _ in range(2):
            update = document(work.train(there, task()))
    assert [(t.name, t.array.tolist()) for t in update.tensors] == [(known[0], [3, 4]), (known[1], 5)]
    assert [(one["event"], one["mine"], one["model"]) for one in told if one["log_level"] == "warning"] == [
        ("tensors renamed by position", names[0], known[0])
    ]
    other = Document((there.tensors[0]._replace(array=np.zeros(3, np.float32)), there.tensors[1]))
    learner.train = lambda weights, config: (learner.get_weights(), {})  # type: ignore[method-assign]
    assert [t.name for t in document(work.train(other, task())).tensors] == list(names)


def test_what_is_local_stays_at_home_under_any_name() -> None:
    """A pattern for the learner's own name holds where the model's tensor has another one, by position."""
    learner = AddsOne()
    learner.names, learner.local = ("dense_1", "head_1"), "head*"
    work = LearnerAtWork(learner)
    for _ in range(2):
        update = document(work.train(model(), task()))
        assert [(t.name, t.array.tolist()) for t in update.tensors] == [("a", [2, 3]), ("b", 3)]
    assert float(learner.given[0][1]) == 0  # its own first value


def test_a_learner_is_told_the_config_of_its_task_before_it() -> None:
    """Where it has the method: it may seed what it draws from."""
    learner = AddsOne()
    told: list[Any] = []
    learner.start_task = told.append  # type: ignore[method-assign, assignment]
    work = LearnerAtWork(learner)
    work.train(model(), task(seed=7))
    work.evaluate(model(), task("evaluate", seed=8))
    assert [one["seed"] for one in told] == [7, 8]
    assert learner.calls[-1] == "evaluate"


def test_a_wrong_number_of_names_is_told_as_such() -> None:
    """Three names for the model's two tensors."""
    learner = AddsOne()
    learner.names = ("a", "b", "c")
    with pytest.raises(InvalidUpdate, match="the learner has 3 names for 2 tensors"):
        LearnerAtWork(learner).train(model(), task())


def test_train_and_evaluate_get_the_parameters_of_their_task() -> None:
    """`config` is the task's, in a dict of the learner's own to change."""
    seen: list[dict[str, Any]] = []
    given = task(epochs=3)

    def sees(config: dict[str, Any]) -> None:
        seen.append(dict(config))
        config.clear()

    LearnerAtWork(AddsOne(during=sees)).train(model(), given)
    assert (seen, given.config) == ([{"round": 1, "epochs": 3}], {"round": 1, "epochs": 3})


def test_arrays_handed_to_train_are_its_own_to_change() -> None:
    """AddsOne works in place, in the memory of the document: what set_weights got does not change by it."""
    learner = AddsOne()
    work = LearnerAtWork(learner)
    work.train(model(), task())
    assert [array.tolist() for array in learner.given[0]] == [[1, 2], 3]
    assert document(work.train(model(), task())).tensors[0].array.tolist() == [2, 3]


def test_set_weights_is_called_once_per_run() -> None:
    """With the first model that arrives; train and evaluate get theirs as an argument."""
    learner = AddsOne()
    work = LearnerAtWork(learner)
    work.train(model(), task())
    work.evaluate(model(), task("evaluate"))
    work.train(model(), task())
    assert learner.calls == ["get_weights", "set_weights", "train", "evaluate", "train"]
    work.evaluate(model(), task("evaluate", run_id="another"))
    assert learner.calls[5:] == ["set_weights", "evaluate"]


# ---- local tensors (FedBN, FedPer)
def test_local_tensors_stay_at_home() -> None:
    """The received value of "b" goes back; the learner's own, as it trained it, is what the next train and evaluate
    see. It begins with that of get_weights()."""
    learner = AddsOne()
    learner.local = "b*"
    work = LearnerAtWork(learner)
    first = document(work.train(model(), task()))
    assert [t.array.tolist() for t in first.tensors] == [[2, 3], 3]
    seen: list[float] = []

    def evaluate(weights: list[Any], config: dict[str, Any]) -> dict[str, float]:
        seen.append(float(weights[1]))
        return {}

    learner.evaluate = evaluate  # type: ignore[method-assign]  # of this one object
    work.evaluate(model(), task("evaluate"))
    second = document(work.train(model(), task()))
    work.evaluate(model(), task("evaluate"))
    own = float(AddsOne().get_weights()[1])
    assert seen == [own + 1, own + 2]
    assert [t.array.tolist() for t in second.tensors] == [[2, 3], 3]


def test_the_initial_model_has_nothing_of_what_is_local(tmp_path: Path) -> None:
    """Zeros stand there, and no document that leaves holds the learner's own values."""

    class Site(AddsOne):
        local = "b"

        def get_weights(self) -> Any:
            return [np.array([1, 2], np.float32), np.array(7.125, np.float32)]

    work = LearnerAtWork(Site(), tmp_path / "site.local")
    sent = b"".join(bytes(part) for part in [*work.initial(), *work.train(model(), task())])
    assert [t.array.tolist() for t in document(work.initial()).tensors] == [[1, 2], 0]
    for value in (7.125, 8.125):
        assert np.float32(value).tobytes() not in sent
        assert value == 7.125 or np.float32(value).tobytes() in (tmp_path / "site.local").read_bytes()


@pytest.mark.parametrize("keep", [(), "local", ["local", "weights"]])
def test_local_tensors_outlive_the_process_and_belong_to_their_run(tmp_path: Path, keep: Any) -> None:
    """In a file that only its user may read; a new run begins with the learner's own first ones, unless they are
    kept."""
    file = tmp_path / "a.local"
    values: list[float] = []

    def at_work() -> LearnerAtWork:
        learner = AddsOne()
        learner.local, learner.keep = "b", keep
        train = learner.train

        def noting(weights: Any, config: dict[str, Any]) -> Any:
            values.append(float(weights[1]))
            return train(weights, config)

        learner.train = noting  # type: ignore[method-assign]  # of this one object
        return LearnerAtWork(learner, file)

    for _ in range(2):
        at_work().train(model(), task())
    work = at_work()
    work.train(model(), task())
    work.train(model(), task(run_id="another"))
    assert values == [0, 1, 2, 3 if keep else 0]
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"no document")
    at_work().train(model(), task(run_id="another"))
    assert values[-1] == 0


# ---- a run begins anew
class Drifts(AddsOne):
    """Takes every weights that it sees for its own, as a module does."""

    def __init__(self) -> None:
        super().__init__()
        self.own = [np.array([5, 6], np.float32), np.array(7, np.float32)]

    def get_weights(self) -> Any:
        """What it saw last, the very arrays."""
        return self.own

    def start_run(self) -> None:
        """Noted."""
        self.calls.append("start_run")

    def evaluate(self, weights: Any, config: dict[str, Any]) -> Any:
        """Takes over what it scores."""
        self.own[0][:] = weights[0]
        return {"score": 1.0}


@pytest.mark.parametrize(("keep", "first"), [((), [5, 6]), ("weights", [1, 2])])
def test_a_run_begins_with_the_learners_own_first_weights(keep: Any, first: list[float]) -> None:
    """Not with what an evaluation of the run before left, unless it says that it keeps that."""
    learner = Drifts()
    learner.keep = keep
    work = LearnerAtWork(learner)
    work.train(model(), task())
    work.evaluate(model(), task("evaluate"))
    assert document(work.initial()).tensors[0].array.tolist() == first


def test_the_learner_is_told_that_a_run_begins_before_its_first_model() -> None:
    """Once per run: there an optimizer's momentum goes."""
    learner = Drifts()
    work = LearnerAtWork(learner)
    for run_id in ("one", "one", "two"):
        work.train(model(), task(run_id=run_id))
    assert learner.calls == ["start_run", "set_weights", "train", "train", "start_run", "set_weights", "train"]


def test_what_evaluate_does_to_its_weights_changes_no_model() -> None:
    """torch.from_numpy takes read-only memory, and writes to it."""

    class Careless(AddsOne):
        def evaluate(self, weights: Any, config: dict[str, Any]) -> Any:
            assert not weights[0].flags.writeable
            ctypes.memset(weights[0].ctypes.data, 0, weights[0].nbytes)
            return {"score": float(weights[0][0])}

    given = model()
    assert LearnerAtWork(Careless()).evaluate(given, task("evaluate")).metrics == {"score": 0.0}
    assert given.tensors[0].array.tolist() == [1, 2]


def test_several_patterns_may_be_local() -> None:
    """A sequence of patterns; with all of them local nothing leaves."""
    learner = AddsOne()
    learner.local = ["a", "nothing.*", "b"]
    update = document(LearnerAtWork(learner).train(model(), task()))
    assert [t.array.tolist() for t in update.tensors] == [[1, 2], 3]


# ---- evaluate
def test_the_number_of_examples_is_moved_to_metadata() -> None:
    """`num_evaluation_examples` among the metrics weights them; it is no score."""
    result = LearnerAtWork(AddsOne()).evaluate(model(), task("evaluate"))
    assert result == m.EvaluationResult(metrics={"score": 1.0}, metadata={"num_evaluation_examples": 4})


def test_evaluate_may_return_metadata_too() -> None:
    """`(metrics, metadata)`; a count of examples that stands there is the one that holds."""
    learner = Returns(({"score": 1, "num_evaluation_examples": 4}, {"num_evaluation_examples": 5, "device": "cpu"}))
    result = LearnerAtWork(learner).evaluate(model(), task("evaluate"))
    assert result.metrics == {"score": 1.0}
    assert result.metadata == {"num_evaluation_examples": 5, "device": "cpu"}


@pytest.mark.parametrize("returned", [None, 0.5, [1], ({}, {}, {})])
def test_what_evaluate_may_not_return_is_named(returned: Any) -> None:
    """Anything but a dict of numbers, or a pair of dicts."""
    with pytest.raises(InvalidUpdate, match=r"evaluate\(\) must be a dict of numbers, not"):
        LearnerAtWork(Returns(returned)).evaluate(model(), task("evaluate"))


# ---- initial weights
def test_initial_weights_carry_names_and_what_is_trainable() -> None:
    """As the learner says."""
    learner = AddsOne()
    learner.trainable = [True, False]
    made = document(LearnerAtWork(learner).initial())
    assert [(t.name, t.trainable) for t in made.tensors] == [("a", True), ("b", False)]


def test_tensors_without_names_are_counted() -> None:
    """ "0", "1"; a class that only has the four methods will do."""

    class Bare:
        def get_weights(self) -> Any:
            return [[1.0, 2.0], np.int8(3)]

        def set_weights(self, weights: Any) -> None: ...

        def train(self, weights: Any, config: Any) -> Any:
            return weights, {}

    work = LearnerAtWork(Bare())  # type: ignore[arg-type]  # by its methods alone
    made = document(work.initial())
    assert [(t.name, t.array.dtype.name, t.array.tolist()) for t in made.tensors] == [
        ("0", "float64", [1.0, 2.0]),
        ("1", "int8", 3),
    ]
    assert [t.name for t in document(work.train(made, task())).tensors] == ["0", "1"]


@pytest.mark.parametrize("method", ["get_weights", "set_weights", "train", "evaluate"])
def test_a_method_that_is_not_written_is_named(method: str) -> None:
    """By class and method."""

    class Unfinished(Learner): ...

    arguments: Any = {"get_weights": (), "set_weights": ([],)}.get(method, ([], {}))
    with pytest.raises(NotImplementedError, match=rf"Unfinished needs {method}\(\)"):
        getattr(Unfinished(), method)(*arguments)
