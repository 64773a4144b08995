"""SCAFFOLD for torch: steps, controls and what is sent against the paper, for any module, tied and frozen too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from learner_agent.pytorch import Scaffold, load_weights, weights_of  # noqa: E402
from tests.learner_agent.quadratics import Paper, Parabola, some  # noqa: E402


class Point(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A point in float64 between a frozen number and a whole one that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = torch.nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
        self.w = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))


def train(model: Any, scaffold: Scaffold, parabola: Parabola, config: dict[str, Any]) -> dict[str, Any]:
    """A task: what it adds to the metadata."""
    a, b = torch.from_numpy(parabola.a), torch.from_numpy(parabola.b)
    optimizer = torch.optim.SGD(model.parameters(), lr=parabola.rate)
    scaffold.begin(model, config)
    for _ in range(parabola.steps):
        optimizer.zero_grad()
        (a * (model.w - b).square()).sum().div(2).backward()
        scaffold.add_gradient()
        optimizer.step()
    return scaffold.end(parabola.rate)


def test_rounds_are_those_of_the_paper() -> None:
    """Four learners, six rounds, of which one learner misses every other."""
    parabolas = some(4)
    paper = Paper.start(parabolas, np.zeros(3))
    sides = [(Point(), Scaffold()) for _ in parabolas]
    x, c = np.zeros(3), np.zeros(3)
    for number in range(1, 7):
        members = [0, 1, 2] if number % 2 else [0, 1, 2, 3]
        config = {"inputs": {"control": [c]}, "run_id": "run", "last_update_taken": True}
        ends, changes = [], []
        for i in members:
            model, scaffold = sides[i]
            load_weights(model, [np.ones(2), x, np.array(0)])
            told = train(model, scaffold, parabolas[i], config)
            ends.append(weights_of(model)[1])
            changes.append(told["extra"]["control"][0])
        x, c = np.mean(ends, axis=0), c + np.sum(changes, axis=0) / 4
        paper.round(members)
        np.testing.assert_allclose(x, paper.x, rtol=1e-10)
        np.testing.assert_allclose(c, paper.c, rtol=1e-10, atol=1e-12)


def test_nothing_changes_in_a_run_without_it() -> None:
    """The same bits as without the class, and nothing in the metadata."""
    parabola, model, alone = some(1)[0], Point(), Point()
    assert train(model, Scaffold(), parabola, {"round": 1}) == {}
    optimizer = torch.optim.SGD(alone.parameters(), lr=parabola.rate)
    for _ in range(parabola.steps):
        optimizer.zero_grad()
        off = alone.w - torch.from_numpy(parabola.b)
        (torch.from_numpy(parabola.a) * off.square()).sum().div(2).backward()
        optimizer.step()
    assert torch.equal(model.w, alone.w)


def test_a_tied_parameter_is_corrected_once() -> None:
    """It has its control under each of its names, all alike; bfloat16 as well."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)).bfloat16()
    model[1].weight = model[0].weight
    scaffold, two = Scaffold(), np.full((1, 1), 2, np.float32)
    scaffold.begin(model, {"inputs": {"control": [two, two]}})
    scaffold.add_gradient()
    assert model[0].weight.grad.item() == 2
    sent = scaffold.end(1.0)["extra"]["control"]
    assert [(one.dtype.name, one.item()) for one in sent] == [("bfloat16", -2), ("bfloat16", -2)]


def test_a_control_of_other_tensors_is_refused() -> None:
    """As when the run's first model came from a learner that did not say what is trainable."""
    with pytest.raises(ValueError, match=r"is Learner\.trainable set\?"):
        Scaffold().begin(Point(), {"inputs": {"control": [np.zeros(3), np.zeros(2)]}})
    with pytest.raises(ValueError, match="begin"):
        Scaffold().end(0.1)
