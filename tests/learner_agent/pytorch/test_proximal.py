"""FedProx: the term and its gradient against numpy, and nothing at all where mu is 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from learner_agent.pytorch import Proximal, load_weights, weights_of  # noqa: E402

Array = NDArray[Any]
X = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
Y = np.array([[1.0], [-2.0], [0.5]])
START = [np.array([[0.25, -0.5]]), np.array([0.125])]  # weight and bias of the global model


def line() -> Any:
    """A straight line in float64 that has the global weights."""
    model = torch.nn.Linear(2, 1, dtype=torch.float64)
    load_weights(model, START)
    return model


def error(model: Any) -> Any:
    """Mean squared error."""
    return torch.nn.functional.mse_loss(model(torch.from_numpy(X)), torch.from_numpy(Y))


def train(model: Any, mu: float | None, how: str, make: Callable[[Any], Any], steps: int = 5) -> list[Array]:
    """Full-batch steps from the model's weights."""
    proximal, optimizer = Proximal(model, {} if mu is None else {"proximal_mu": mu}), make(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = error(model)
        if how == "loss":
            loss = loss + proximal.loss()
        loss.backward()
        if how == "gradient":
            proximal.add_gradient()
        optimizer.step()
    return weights_of(model)


def by_hand(mu: float, steps: int = 5, rate: float = 0.1) -> list[Array]:
    """The same by numpy: gradient of the mean squared error plus mu times the way from the start."""
    weight, bias = START
    for _ in range(steps):
        off = X @ weight.T + bias - Y
        of_weight, of_bias = 2 * off.T @ X / len(X), 2 * off.mean(axis=0)
        weight, bias = (
            weight - rate * (of_weight + mu * (weight - START[0])),
            bias - rate * (of_bias + mu * (bias - START[1])),
        )
    return [weight, bias]


def sgd(parameters: Any) -> Any:
    """Plain gradient descent."""
    return torch.optim.SGD(parameters, lr=0.1)


def adam(parameters: Any) -> Any:
    """An optimizer that keeps a state."""
    return torch.optim.Adam(parameters, lr=0.05)


def momentum(parameters: Any) -> Any:
    """Another one."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("mu", [0.01, 1, 4.0])
def test_steps_are_those_of_numpy(how: str, mu: float) -> None:
    """As a term of the loss and as an addition to the gradient."""
    ours = train(line(), mu, how, sgd)
    for array, want in zip(ours, by_hand(mu), strict=True):
        np.testing.assert_allclose(array, want, rtol=1e-12)
    assert not np.allclose(ours[0], by_hand(0)[0], rtol=1e-3)


@pytest.mark.parametrize("make", [adam, momentum])
def test_both_ways_are_one_with_any_optimizer(make: Callable[[Any], Any]) -> None:
    """The optimizer sees the same gradients."""
    for one, other in zip(train(line(), 0.5, "loss", make), train(line(), 0.5, "gradient", make), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("make", [sgd, adam, momentum])
@pytest.mark.parametrize("mu", [None, 0, 0.0])
def test_no_mu_changes_nothing_to_the_bit(how: str, make: Callable[[Any], Any], mu: float | None) -> None:
    """Not given, or 0."""
    plain = train(line(), None, "neither", make)
    assert [a.tobytes() for a in train(line(), mu, how, make)] == [a.tobytes() for a in plain]


def test_a_strong_mu_holds_the_weights() -> None:
    """The further the fewer: with mu = 9 the weights stay nearer to the start than with 1, and with 1 than with 0."""
    ways = [math.dist(train(line(), mu, "gradient", sgd, 50)[0].ravel(), START[0].ravel()) for mu in (9, 1, 0)]
    assert 0 < ways[0] < ways[1] < ways[2]


def test_the_term_by_hand() -> None:
    """mu/2 · (1² + 2² + 3²) = 2 · 14 = 28, anchored at what the model held when the term was made."""
    model = line()
    proximal = Proximal(model, {"proximal_mu": 4})
    assert proximal.loss().item() == 0
    with torch.no_grad():
        model.weight += torch.tensor([[1.0, -2.0]])
        model.bias += 3
    assert proximal.loss().item() == 28
    assert proximal.loss().dtype == torch.float64


def test_only_what_is_trained_is_drawn_back() -> None:
    """A frozen parameter and BatchNorm's buffers have no part in it; a parameter without a gradient gets one."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    torch.nn.init.zeros_(model[0].bias)
    proximal = Proximal(model, {"proximal_mu": 2})
    with torch.no_grad():
        for one in (*model.parameters(), model[1].running_mean):
            one += 1
    proximal.add_gradient()
    assert model[0].weight.grad is None
    assert [one.grad.tolist() for one in (model[0].bias, model[1].weight, model[1].bias)] == [[2, 2]] * 3
    assert proximal.loss().item() == 6


def test_half_precision_is_summed_in_float32() -> None:
    """4,096 squares of 1/4 make 1,024: a sum in bfloat16 would stop at 64."""
    model = torch.nn.Linear(4096, 1, bias=False, dtype=torch.bfloat16)
    torch.nn.init.zeros_(model.weight)
    proximal = Proximal(model, {"proximal_mu": 2})
    with torch.no_grad():
        model.weight += 0.5
    loss: Any = proximal.loss()
    loss.backward()
    assert (loss.item(), loss.dtype) == (1024, torch.float32)
    assert (model.weight.grad == 1).all()
    assert model.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("mu", [-0.1, math.inf, math.nan, True, "1", [1]])
def test_a_mu_that_cannot_be_is_refused(mu: Any) -> None:
    """By name and value."""
    with pytest.raises(ValueError, match="proximal_mu must be a finite number"):
        Proximal(line(), {"proximal_mu": mu})
