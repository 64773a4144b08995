"""Server optimizers: steps worked out by hand, the papers' formulas restated, what moves and what is remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregation import State
from services.config import resolve
from services.errors import AggregationFailed, InvalidConfig
from services.federation import plan
from services.optimizers import OPTIMIZERS, ServerOptimizer
from services.weights import BLOCK, DTYPES
from tests.services.arrays import Array

FLOATS = ["float16", "bfloat16", "float32", "float64"]
MOVING = ["FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"]
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
every_moving_one = pytest.mark.parametrize("name", MOVING)


def steps(optimizer: ServerOptimizer, start: Any, aggregates: Sequence[Any], dtype: str) -> list[list[float]]:
    """The model of one tensor after each step."""
    model, state, found = [np.array(start).astype(DTYPES[dtype])], None, []
    for aggregate in aggregates:
        model, state = optimizer.step(model, [np.array(aggregate).astype(DTYPES[dtype])], [True], state)
        found.append(model[0].astype(np.float64).tolist())
        assert model[0].dtype == DTYPES[dtype]
    return found


# W = 1, aggregates 3 and then 5.
# FedAvgM, momentum 1/2, learning rate 2: Delta 2, m 2, W 5. Delta 0, m 1, W 7.
# The others with tau = 1, learning rate 4, beta1 = 1/2 where they have it and beta2 = 3/4; m begins at 0, v at 1.
# FedAdagrad, beta1 = 0, Delta 2: m 2, v 1 + 4 = 5, W 1 + 8 / (5^0.5 + 1).
# FedAdam, Delta 2: m 1, v 3/4 + 1 = 7/4, W 1 + 4 / (1.75^0.5 + 1).
# FedYogi, Delta 2: m 1, v 1 - 1/4 * 4 * sign(1 - 4) = 2, W 1 + 4 / (2^0.5 + 1).
def test_steps_worked_out_by_hand() -> None:
    """The first two steps of FedAvgM, and the first one of the adaptive ones."""
    assert steps(OPTIMIZERS["FedAvgM"](learning_rate=2, momentum=0.5), [1], [[3], [5]], "float32") == [[5.0], [7.0]]
    adagrad = OPTIMIZERS["FedAdagrad"](learning_rate=4, tau=1)
    assert steps(adagrad, [1], [[3]], "float64") == [[pytest.approx(1 + 8 / (5**0.5 + 1), rel=1e-15)]]
    both = {"learning_rate": 4, "beta1": 0.5, "beta2": 0.75, "tau": 1}
    adam = steps(OPTIMIZERS["FedAdam"](**both), [1], [[3]], "float64")
    assert adam == [[pytest.approx(1 + 4 / (1.75**0.5 + 1), rel=1e-15)]]
    yogi = steps(OPTIMIZERS["FedYogi"](**both), [1], [[3]], "float64")
    assert yogi == [[pytest.approx(1 + 4 / (2**0.5 + 1), rel=1e-15)]]


def test_yogis_second_moment_shrinks_by_the_square_alone() -> None:
    """Delta 1 after v = 16: v = 16 - 1/4 * sign(16 - 1) = 15.75, where Adam's would be 3/4 * 16 + 1/4 = 12.25."""
    both = {"learning_rate": 1.0, "beta1": 0.0, "beta2": 0.75, "tau": 4.0}
    yogi = steps(OPTIMIZERS["FedYogi"](**both), [0.0], [[1.0]], "float64")
    assert yogi == [[pytest.approx(1 / (15.75**0.5 + 4), rel=1e-15)]]
    adam = steps(OPTIMIZERS["FedAdam"](**both), [0.0], [[1.0]], "float64")
    assert adam == [[pytest.approx(1 / (12.25**0.5 + 4), rel=1e-15)]]


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("FedAvgM", {"learning_rate": 1.0, "momentum": 0.9}),
        ("FedAdagrad", {"learning_rate": 0.002, "beta1": 0.0, "tau": 1e-3}),
        ("FedAdam", {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
        ("FedYogi", {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
    ],
)
def test_defaults_are_those_of_the_papers(name: str, defaults: Mapping[str, float]) -> None:
    """Momentum, betas and tau of their experiments."""
    assert OPTIMIZERS[name]() == OPTIMIZERS[name](**defaults)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_first_step_by_default_does_no_harm(name: str) -> None:
    """It is in no place longer than what the aggregate says, however short or long that is."""
    for size in (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0):
        delta = np.random.default_rng(3).normal(0, size, 1000)
        (made,), _ = OPTIMIZERS[name]().step([np.zeros(1000)], [delta.copy()], [True], None)
        assert np.all(np.abs(made) <= np.abs(delta) * (1 + 1e-9))
        assert np.all(made * delta >= 0)


def restated(name: str, parameters: Mapping[str, float], start: Array, aggregates: Sequence[Array]) -> list[Array]:
    """The papers' formulas in plain numpy, float64; each aggregate is what a round made, whatever the model was."""
    w, m = start.astype(np.float64), np.zeros(start.shape)
    v, found = np.full(start.shape, parameters.get("tau", 0.0) ** 2), []
    for aggregate in aggregates:
        delta = aggregate.astype(np.float64) - w
        if name == "FedAvgM":
            m = parameters["momentum"] * m + delta
            w = w + parameters["learning_rate"] * m
        else:
            m = parameters["beta1"] * m + (1 - parameters["beta1"]) * delta
            if name == "FedAdagrad":
                v = v + delta**2
            elif name == "FedAdam":
                v = parameters["beta2"] * v + (1 - parameters["beta2"]) * delta**2
            else:
                v = v - (1 - parameters["beta2"]) * delta**2 * np.sign(v - delta**2)
            w = w + parameters["learning_rate"] * m / (np.sqrt(v) + parameters["tau"])
        w = w.astype(start.dtype).astype(np.float64)
        found.append(w)
    return found


@st.composite
def parameters(draw: st.DrawFn, name: str) -> dict[str, float]:
    """Values that an optimizer takes."""
    found = {"learning_rate": draw(st.floats(0.01, 1))}
    if name == "FedAvgM":
        return {**found, "momentum": draw(st.floats(0, 0.95))}
    found |= {"tau": draw(st.floats(1e-3, 1)), "beta1": draw(st.floats(0, 0.95))}
    return found if name == "FedAdagrad" else {**found, "beta2": draw(st.floats(0, 0.999))}


@every_moving_one
@given(data=st.data())
def test_steps_are_those_of_the_papers(name: str, data: st.DataObject) -> None:
    """Several rounds of every float dtype: the state goes from one to the next; within the rounding of the dtype."""
    dtype = data.draw(st.sampled_from(FLOATS))
    given_parameters = data.draw(parameters(name))
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    start = draw.standard_normal((4, 3)).astype(DTYPES[dtype])
    aggregates = [draw.standard_normal((4, 3)).astype(DTYPES[dtype]) for _ in range(data.draw(st.integers(1, 4)))]
    got = steps(OPTIMIZERS[name](**given_parameters), start, aggregates, dtype)
    want = restated(name, given_parameters, start, aggregates)
    limit = max(float(ml_dtypes.finfo(DTYPES[dtype]).eps), 1e-15)
    for one, other in zip(got, want, strict=True):
        assert np.allclose(one, other, rtol=200 * limit, atol=200 * limit)


def model_of_all(draw: np.random.Generator) -> list[Array]:
    """A tensor of every dtype, 0-d, empty and larger than a block."""
    shapes: list[tuple[int, ...]] = [(), (0, 2), (5,), (BLOCK + 3,)]
    return [draw.integers(0, 2, shape).astype(dtype) for dtype in DTYPES.values() for shape in shapes]


@every_optimizer
def test_only_trainable_floats_move(name: str) -> None:
    """Integers, bools and buffers take the aggregated value to the bit, and nothing is remembered of them."""
    draw = np.random.default_rng(5)
    model, aggregate = model_of_all(draw), model_of_all(draw)
    trainable = [index % 3 != 0 for index in range(len(model))]
    fresh = [array.copy() for array in aggregate]
    got, state = OPTIMIZERS[name]().step(model, fresh, trainable, None)
    for index, (new, old, want) in enumerate(zip(got, model, aggregate, strict=True)):
        assert (new.dtype, new.shape) == (want.dtype, want.shape)
        moves = name != "None" and trainable[index] and new.dtype.kind not in "iub"
        if not moves:
            assert new.tobytes() == want.tobytes()
        elif (want != old).any():
            assert new.tobytes() != want.tobytes() or name == "FedAvgM"  # whose first step is the aggregate
        assert moves == any(key.endswith(f".{index}") for key in state or {})


@every_moving_one
def test_the_state_is_a_flat_map_of_arrays(name: str) -> None:
    """Float64 for float64 and float32 for shorter tensors, of the tensors' shapes: it can be written to a file."""
    draw = np.random.default_rng(6)
    model = model_of_all(draw)
    _, state = OPTIMIZERS[name]().step(model, model_of_all(draw), [True] * len(model), None)
    assert state is not None
    moments = {"m"} if name == "FedAvgM" else {"m", "v"}
    floats = [index for index, array in enumerate(model) if array.dtype.kind not in "iub"]
    assert set(state) == {f"{moment}.{index}" for moment in moments for index in floats}
    for key, array in state.items():
        tensor = model[int(key.partition(".")[2])]
        assert array.shape == tensor.shape
        assert array.dtype == (np.float64 if tensor.dtype == np.float64 else np.float32)


@every_moving_one
def test_a_step_changes_neither_the_model_nor_the_state_and_works_in_the_aggregate(name: str) -> None:
    """A step that fails later can be done again; the next model stands in the arrays that the aggregate had."""
    draw = np.random.default_rng(7)
    model, optimizer = [draw.standard_normal(9), np.array(3)], OPTIMIZERS[name]()
    _, state = optimizer.step(model, [draw.standard_normal(9), np.array(4)], [True, True], None)
    aggregate = [draw.standard_normal(9), np.array(5)]

    def done_once() -> tuple[list[Array], State | None]:
        for array in [*model, *(state or {}).values()]:
            array.flags.writeable = False
        room = [array.copy() for array in aggregate]
        made, after = optimizer.step(model, room, [True, True], state)
        assert all(one is other for one, other in zip(made, room, strict=True))
        return made, after

    (first, one), (second, other) = done_once(), done_once()
    assert [array.tobytes() for array in first] == [array.tobytes() for array in second]
    assert one is not None
    assert other is not None
    assert {key: array.tobytes() for key, array in one.items()} == {key: a.tobytes() for key, a in other.items()}


@every_optimizer
def test_what_the_aggregate_agrees_on_stays(name: str) -> None:
    """A round that changes nothing leaves the model as it is: the first step of no pseudo-gradient is none."""
    model = [np.array([0.1, -7.5, 3e30]), np.array([1 / 3], np.float32)]
    got, _ = OPTIMIZERS[name]().step(model, [array.copy() for array in model], [True, True], None)
    assert [array.tobytes() for array in got] == [array.tobytes() for array in model]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("FedAvgM", "momentum", 1.0),
        ("FedAvgM", "momentum", -0.1),
        ("FedAvgM", "learning_rate", 0),
        ("FedAdagrad", "beta1", True),
        ("FedAdagrad", "tau", 0.0),
        ("FedAdam", "beta2", 1),
        ("FedYogi", "tau", "small"),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, key: str, value: Any) -> None:
    """When the run is posted, in a sentence that names the optimizer, the parameter and the value."""
    given_config = {"server_optimizer": name, "optimizer": {key: value}}
    with pytest.raises(InvalidConfig, match=f"optimizer: {name} does not take .*{key} must be .* got {value!r}"):
        plan(resolve({"termination": {"federation_rounds": 1}}, given_config))


@every_moving_one
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_is_finite(name: str, value: float) -> None:
    """Also for who makes an optimizer without a configuration, in which no such number can stand."""
    key = "momentum" if name == "FedAvgM" else "beta1"
    for one in ("learning_rate", key):
        with pytest.raises(ValueError, match=f"{one} must be"):
            OPTIMIZERS[name](**{one: value})


HUGE = st.sampled_from([0.0, 1.0, -1e18, 1e18, 1e19, 3e38, -3e38, 1e150, 1e154, 1e200, 1.7e308, -1.7e308])


@pytest.mark.parametrize("name", OPTIMIZERS)
@given(
    st.sampled_from(["float32", "float64"]),
    st.lists(st.lists(HUGE, min_size=3, max_size=3), min_size=1, max_size=4),
)
def test_a_step_that_overflows_fails_and_leaves_the_state(name: str, dtype: str, aggregates: list[list[float]]) -> None:
    """Whatever is aggregated: the state is of finite numbers, or the step fails and the last state is as it was."""
    limit = float(np.finfo(dtype).max)
    model: list[Array] = [np.zeros(3, dtype)]
    state: State | None = None
    for values in aggregates:
        aggregate: list[Array] = [np.clip(np.array(values), -limit, limit).astype(dtype)]
        before, why = {key: array.copy() for key, array in (state or {}).items()}, "overflows"
        try:
            made, after = OPTIMIZERS[name]().step(model, aggregate, [True], state)
        except AggregationFailed as error:
            why, made, after = error.detail, model, state
        assert "overflows" in why
        assert all(np.isfinite(array).all() for array in (after or {}).values())
        assert all(np.array_equal(before[key], array) for key, array in (state or {}).items())
        model, state = made if np.isfinite(made[0]).all() else model, after


def test_a_float64_step_that_overflows_is_no_model_of_the_largest_floats() -> None:
    """It would be held within the floats' range, and look finite."""
    optimizer = OPTIMIZERS["FedAvgM"](learning_rate=1e200, momentum=0.0)
    assert optimizer.step([np.zeros(1)], [np.array([1e100])], [True], None)[0][0].tolist() == [1e300]
    with pytest.raises(AggregationFailed, match="the server optimizer's step overflows"):
        optimizer.step([np.zeros(1)], [np.array([1e150])], [True], None)
