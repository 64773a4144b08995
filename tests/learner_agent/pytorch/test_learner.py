"""The torch helper: a module's whole state as numpy arrays and back, without loss and without surprises."""

import random
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from learner_agent.pytorch import TorchLearner, load_weights, weights_of  # noqa: E402


def small_model() -> Any:
    """Linear 2 -> 3 and a BatchNorm: 2 + 2 parameters, then 3 buffers of which one is 0-d."""
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


class Small(TorchLearner):
    """What a user writes, without a call of super().__init__()."""

    def __init__(self, model: Any) -> None:
        self.model = model


def test_weights_are_the_whole_state_in_order() -> None:
    """Parameters, running statistics and the 0-d counter come out with their own shapes and dtypes."""
    weights = weights_of(small_model())
    assert [(w.shape, str(w.dtype)) for w in weights] == [
        ((3, 2), "float32"),
        ((3,), "float32"),
        ((3,), "float32"),
        ((3,), "float32"),
        ((3,), "float32"),
        ((3,), "float32"),
        ((), "int64"),
    ]


def test_weights_go_out_and_come_back_bit_equal() -> None:
    """What one module gives, another takes: both then give the same arrays."""
    source, target = small_model(), small_model()
    source(torch.randn(5, 2))  # moves the running statistics and the counter
    load_weights(target, weights_of(source))
    for ours, theirs in zip(weights_of(source), weights_of(target), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(target[1].num_batches_tracked) == 1


def test_returned_arrays_do_not_alias_the_model() -> None:
    """Training after get_weights leaves the arrays alone, and writing to the arrays leaves the model alone."""
    model = small_model()
    weights = weights_of(model)
    before = weights[0].copy()
    with torch.no_grad():
        model[0].weight.add_(1)
    np.testing.assert_array_equal(weights[0], before)
    weights[1][:] = 7
    assert not (model[0].bias == 7).any()


def test_loaded_arrays_do_not_alias_the_model() -> None:
    """The caller's arrays may be reused after set_weights; the model has its own memory."""
    model = small_model()
    weights = weights_of(model)
    load_weights(model, weights)
    weights[0][:] = 7
    assert not (model[0].weight == 7).any()


def test_parameters_stay_the_same_objects() -> None:
    """An optimizer made before set_weights goes on moving the model's parameters."""
    model = small_model()
    before = list(model.parameters())
    load_weights(model, weights_of(small_model()))
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))


def test_bfloat16_travels_without_loss() -> None:
    """1 + 2**-7 is a bfloat16; a matrix, a 0-d tensor and its bits survive both ways."""
    model = torch.nn.Linear(2, 1).to(torch.bfloat16)
    model.register_buffer("scale", torch.tensor(1 + 2**-7, dtype=torch.bfloat16))
    weights = weights_of(model)
    assert [w.dtype for w in weights] == [np.dtype(ml_dtypes.bfloat16)] * 3
    assert float(weights[2]) == 1.0078125
    assert weights[2].shape == ()
    other = torch.nn.Linear(2, 1).to(torch.bfloat16)
    other.register_buffer("scale", torch.tensor(0.0, dtype=torch.bfloat16))
    load_weights(other, weights)
    assert torch.equal(other.weight, model.weight)
    assert float(other.scale) == 1.0078125


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"])
def test_every_dtype_keeps_its_name(dtype: str) -> None:
    """A buffer of each dtype comes out as the numpy dtype of the same name and goes back unchanged."""
    model = torch.nn.Module()
    model.register_buffer("b", torch.tensor([0, 1, 1]).to(getattr(torch, dtype)))
    (array,) = weights_of(model)
    assert str(array.dtype) == dtype
    load_weights(model, [1 - array if dtype != "bool" else ~array])
    assert model.b.int().tolist() == [1, 0, 0]
    assert model.b.dtype == getattr(torch, dtype)


def test_the_model_keeps_its_dtype() -> None:
    """float64 arrays put into a float32 model leave a float32 model."""
    model = torch.nn.Linear(2, 1)
    load_weights(model, [np.array([[0.5, 0.25]]), np.array([2.0])])
    assert model.weight.dtype == torch.float32
    assert model.weight.tolist() == [[0.5, 0.25]]


def test_arrays_as_they_come_off_the_wire_are_taken_in_silence() -> None:
    """Read-only memory, Fortran order, reversed and big-endian arrays all load, and none warns."""
    model = torch.nn.Linear(2, 2)
    read_only = np.frombuffer(np.arange(4, dtype="<f4").tobytes(), dtype="<f4").reshape(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, [read_only, np.arange(2.0, dtype=">f8")])
        assert model.weight.tolist() == [[0, 1], [2, 3]]
        assert model.bias.tolist() == [0, 1]
        load_weights(model, [np.asfortranarray(read_only), np.arange(2.0, dtype=np.float32)[::-1]])
    assert model.weight.tolist() == [[0, 1], [2, 3]]
    assert model.bias.tolist() == [1, 0]


def test_strided_tensors_come_out_in_c_order() -> None:
    """A channels-last convolution gives the same numbers as a plain one, laid out in C order."""
    model = torch.nn.Conv2d(3, 4, 2)
    plain = weights_of(model)[0]
    array = weights_of(model.to(memory_format=torch.channels_last))[0]
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, plain)


def test_tied_weights_keep_their_tie() -> None:
    """A matrix used twice travels under both names, and both names are one tensor after loading."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    learner = Small(model)
    assert learner.names == ["0.weight", "1.weight"]
    assert learner.trainable == [True, True]
    learner.set_weights([np.eye(2, dtype=np.float32) * 3] * 2)
    assert model[1].weight is model[0].weight
    assert model[0].weight.tolist() == [[3, 0], [0, 3]]


def test_a_wrong_shape_names_the_tensor_and_changes_nothing() -> None:
    """The message has the tensor, the expected and the received shape; earlier tensors stay as they were."""
    model = small_model()
    before = weights_of(model)
    bad: list[NDArray[Any]] = [np.zeros_like(w) for w in before]
    bad[4] = np.zeros((1, 3), np.float32)
    with pytest.raises(ValueError, match=r"'1.running_mean': expected shape \(3,\), got \(1, 3\)"):
        load_weights(model, bad)
    np.testing.assert_array_equal(model[0].weight.detach().numpy(), before[0])


def test_a_wrong_count_says_where_it_starts() -> None:
    """Weights without buffers, too few, or too many are refused with the counts and the first odd tensor."""
    model = small_model()
    weights = weights_of(model)
    with pytest.raises(ValueError, match=r"7 tensors, got 4: '1.running_mean' is the first without an array"):
        load_weights(model, weights[:4])
    with pytest.raises(ValueError, match=r"7 tensors, got 6: they differ from '0.weight' on, .*\(3, 2\), got \(3,\)"):
        load_weights(model, weights[1:])
    with pytest.raises(ValueError, match=r"7 tensors, got 8: array 7 of shape \(2,\) is the first without a tensor"):
        load_weights(model, [*weights, np.zeros(2)])


def test_extra_state_stays_at_home() -> None:
    """A module's extra state is no tensor: it is neither sent nor lost nor required."""

    class WithExtra(torch.nn.Linear):  # type: ignore[misc, name-defined]  # torch is imported as Any here
        note = "mine"

        def get_extra_state(self) -> str:
            return self.note

        def set_extra_state(self, state: str) -> None:
            self.note = state

    model = WithExtra(1, 1)
    assert Small(model).names == ["weight", "bias"]
    load_weights(model, [np.ones((1, 1), np.float32), np.ones(1, np.float32)])
    assert model.note == "mine"
    assert model.weight.item() == 1


def test_what_numpy_cannot_hold_is_named() -> None:
    """A sparse buffer is refused by name."""
    model = torch.nn.Module()
    model.register_buffer("table", torch.eye(2).to_sparse())
    with pytest.raises(ValueError, match=r"'table' \(.*\) has no numpy form"):
        weights_of(model)


def test_an_array_torch_does_not_know_is_named() -> None:
    """An array of strings is refused with the tensor's name."""
    model = torch.nn.Linear(1, 1, bias=False)
    with pytest.raises(ValueError, match="'weight': an array of <U1"):
        load_weights(model, [np.array([["x"]])])


def test_learner_derives_names_and_trainable_from_the_model() -> None:
    """Buffers and frozen parameters are not trainable; the order is that of the weights."""
    model = small_model()
    model[0].bias.requires_grad = False
    learner = Small(model)
    assert learner.names == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    assert learner.trainable == [True, False, True, True, False, False, False]
    assert len(learner.get_weights()) == 7


@pytest.mark.parametrize("how", ["in the class", "in __init__"])
def test_only_what_is_trained_travels_when_the_learner_says_so(how: str) -> None:
    """The adapter of a frozen model: its names, its arrays and its place; buffers and frozen parameters stay."""
    model = small_model()
    model[0].requires_grad_(False)

    class Adapted(TorchLearner):
        trainable_only = how == "in the class"

        def __init__(self) -> None:
            super().__init__(*[] if self.trainable_only else [True])
            self.model = model

    learner = Adapted()
    frozen = weights_of(model)[:2]
    assert (learner.names, learner.trainable) == (["1.weight", "1.bias"], [True, True])
    learner.set_weights([np.full(3, 5, np.float32), np.full(3, 7, np.float32)])
    assert [array.tolist() for array in learner.get_weights()] == [[5, 5, 5], [7, 7, 7]]
    assert model[1].weight.tolist() == [5, 5, 5]
    for before, after in zip(frozen, weights_of(model), strict=False):
        np.testing.assert_array_equal(before, after)
    with pytest.raises(ValueError, match="the model has 2 tensors, got 7"):
        learner.set_weights(weights_of(model))


def test_a_task_begins_with_its_seed() -> None:
    """What torch, numpy and Python draw in it follows from the seed of its config."""

    def drawn(config: dict[str, Any]) -> tuple[float, float, float]:
        Small(small_model()).start_task(config)
        return torch.rand(1).item(), np.random.rand(), random.random()

    assert drawn({"seed": 2**32 - 1}) == drawn({"seed": 2**32 - 1})
    assert len({*drawn({"seed": 1}), *drawn({"seed": 2}), *drawn({})}) == 9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device: the way to it and back is not run")
def test_a_module_on_a_device_stays_there() -> None:
    """Its weights come as host arrays, and go back to where they were."""
    model = small_model().cuda()
    learner = Small(model)
    learner.set_weights([np.ones_like(array) for array in learner.get_weights()])
    assert model[0].weight.is_cuda
    assert model[0].weight.sum().item() == 6
