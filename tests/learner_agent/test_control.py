"""A learner's control variate against the paper's lines, and what becomes of it when an update does not count."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from learner_agent.control import Control
from tests.learner_agent.quadratics import Descends, Paper, some


def config(c: Any, **more: Any) -> dict[str, Any]:
    """What train() gets in a run that gives this control."""
    return {"round": 1, "run_id": "run", "last_update_taken": True, "inputs": {"control": c}, **more}


def test_controls_and_models_are_those_of_the_paper() -> None:
    """Five learners, eight rounds of changing members: x and c as the paper has them, with x and c kept by hand."""
    parabolas = some(5)
    paper, learners = Paper.start(parabolas, np.zeros(3)), [Descends(one) for one in parabolas]
    x, c = np.zeros(3), np.zeros(3)
    for number in range(1, 9):
        members = sorted({number % 5, (2 * number + 1) % 5, 0})
        made = [learners[i].train([x, np.array(0)], config([c], round=number)) for i in members]
        x = x + np.mean([weights[0] - x for weights, *_ in made], axis=0)
        c = c + sum(told["extra"]["control"][0] for *_, told in made) / 5
        paper.round(members)
        np.testing.assert_allclose(x, paper.x, rtol=1e-10)
        np.testing.assert_allclose(c, paper.c, rtol=1e-10, atol=1e-12)
    assert abs(c).max() > 0.1


def test_by_hand() -> None:
    """c = 3, c_i = 0: corrected by 3; from 10 to 4 in 2 steps of 0.5 the gradient was 6, so c_i⁺ = 3 and +3 is sent.

    With c = 1 next, the correction is 1 - 3.
    """
    control = Control()
    assert control.begin([np.array([10.0])], config([np.array([3.0])])) == [3.0]
    assert control.end([np.array([4.0])], 2, 0.5) == {"extra": {"control": [3.0]}}
    assert control.begin([np.array([4.0])], config([np.array([1.0])])) == [-2.0]


def after_one_task(control: Control) -> None:
    """c_i⁺ = 3 was sent."""
    control.begin([np.array([10.0])], config([np.array([3.0])]))
    control.end([np.array([4.0])], 2, 0.5)


def test_what_was_sent_but_not_taken_does_not_count() -> None:
    """The controller's control does not have it either: the learner's is as before."""
    control = Control()
    after_one_task(control)
    assert control.begin([np.array([10.0])], config([np.array([3.0])], last_update_taken=False)) == [3.0]
    assert control.begin([np.array([10.0])], config([np.array([3.0])])) == [3.0]  # no update was made in between


def test_another_run_begins_with_zero() -> None:
    """So does the controller's control."""
    control = Control()
    after_one_task(control)
    assert control.begin([np.array([10.0])], config([np.array([0.0])], run_id="next")) == [0.0]


def test_nothing_happens_in_a_run_without_it() -> None:
    """No correction, and nothing to add to the metadata; the next run with it begins with zero."""
    control = Control()
    after_one_task(control)
    assert control.begin([np.array([10.0])], {"round": 1}) == []
    assert control.end([np.array([4.0])], 2, 0.5) == {}


def test_no_step_changes_nothing() -> None:
    """A learner without a batch tells a difference of 0."""
    control = Control()
    control.begin([np.array([10.0])], config([np.array([3.0])]))
    assert control.end([np.array([10.0])], 0, 0.5) == {"extra": {"control": [0.0]}}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_what_is_sent_has_the_dtype_and_shape_of_the_tensor(dtype: Any) -> None:
    """Also of a single number."""
    control = Control()
    given = [np.ones((2, 1), dtype), np.array(1, dtype)]
    (first, second) = control.begin([np.ones((2, 1), dtype), np.array(2, dtype)], config(given))
    assert (first.tolist(), second.shape, float(second)) == ([[1.0], [1.0]], (), 1.0)
    sent = control.end([np.zeros((2, 1), dtype), np.array(0, dtype)], 1, 1.0)["extra"]["control"]
    assert [(one.dtype, one.shape) for one in sent] == [(np.dtype(dtype), (2, 1)), (np.dtype(dtype), ())]
    assert [one.astype(float).tolist() for one in sent] == [[[0.0], [0.0]], 1.0]


def test_what_cannot_be_is_refused() -> None:
    """Other tensors than the control has, and a rate that is none."""
    control = Control()
    with pytest.raises(ValueError, match=r"control has shapes \[\(1,\)\], the trainable floating tensors \[\(2,\)\]"):
        control.begin([np.zeros(2)], config([np.zeros(1)]))
    control.begin([np.zeros(1)], config([np.zeros(1)]))
    for rate in (0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="needs a learning rate above 0"):
            control.end([np.zeros(1)], 1, rate)
