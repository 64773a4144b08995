"""Updates in other forms: what arrives, and what a sender still owes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.encoding import CODECS, OF_MODELS, Sender, decode_model, decode_update, encode_model, own
from services.errors import NonFiniteUpdate
from services.weights import Array, Coded, Document, Spec, Tensor, check_finite, wire
from tests.services.arrays import joined

COUNT = 300  # elements of "w"
MODEL = (
    Tensor("w", np.linspace(-1, 1, COUNT).astype(np.float32)),
    Tensor("steps", np.array(3)),
    Tensor("b", np.array([1, 2], np.float32)),
)
SPEC = Spec.of(MODEL)
BASE = [tensor.array for tensor in MODEL]


def received(update: Sequence[Tensor | Coded], takes: Sequence[str] = tuple(CODECS)) -> Document:
    """What the controller makes of an update; the document that it stores says the same."""
    body = joined(wire.encode(update, {"loss": 0.5}, {"n": 7}))
    document, stored = decode_update(wire.parse(body, spec=SPEC, coded=bool(takes)), body, takes, BASE)
    again = wire.decode(stored)
    assert [(t.name, t.dtype, t.shape, t.trainable, t.array.tobytes()) for t in again.tensors] == [
        (t.name, t.dtype, t.shape, t.trainable, t.array.tobytes()) for t in document.tensors
    ]
    assert (again.metrics, again.metadata) == (document.metrics, document.metadata) == ({"loss": 0.5}, {"n": 7})
    assert Spec.of(document.tensors) == SPEC
    return document


def trained(step: Any, given: Sequence[Tensor | Coded] = MODEL) -> list[Tensor]:
    """The given model's "w" moved by `step`, "steps" by one."""
    w, steps, b = own(wire.Parsed(tuple(given))).tensors
    return [w._replace(array=w.array + np.float32(step)), steps._replace(array=steps.array + 1), b]


# ---- what arrives
@pytest.mark.parametrize("up", CODECS)
def test_an_update_arrives_as_plain_tensors(up: str) -> None:
    """Within the codec's bound of what was trained; what is not coded to the bit."""
    step = np.sin(np.arange(COUNT, dtype=np.float32))
    document = received(Sender(up, 1.0).code(trained(step), MODEL))
    bound = {"none": 0, "bf16": 2**-8, "int8": 0.50001 / 127, "topk": 2**-23}[up]
    assert np.abs(document.arrays[0] - trained(step)[0].array).max() <= bound
    assert (document.arrays[1].tolist(), document.arrays[2].tolist()) == (4, [1, 2])


def test_an_update_in_which_nothing_is_coded_is_stored_as_it_came() -> None:
    """The same buffer: no copy."""
    body = joined(wire.encode(trained(1), {}, {}))
    assert decode_update(wire.parse(body, spec=SPEC), body, ("none", "int8"), BASE)[1] is body


@pytest.mark.parametrize("down", OF_MODELS)
@pytest.mark.parametrize("up", CODECS)
def test_a_coarse_model_costs_the_controller_no_precision(down: str, up: str) -> None:
    """The difference to the model as it was given is added to the controller's own: no training gives its bits back,
    and a step that is finer than the given model's grid arrives."""
    coarse = encode_model(MODEL, down)
    sender = Sender(up, 1.0)
    assert received(sender.code(trained(0, coarse), coarse)).arrays[0].tobytes() == BASE[0].tobytes()
    moved = received(sender.code(trained(1e-4, coarse), coarse)).arrays[0]
    assert moved - BASE[0] == pytest.approx(np.full(COUNT, 1e-4), rel=2**-7)


def test_the_model_that_a_learner_may_change_is_its_own() -> None:
    """Training in place leaves the model as it was given: the difference is to that one."""
    for sent in (MODEL, encode_model(MODEL, "int8")):
        parsed = wire.parse(joined(wire.encode(sent)))
        before = [array.copy() for array in decode_model(parsed).arrays]
        for array in own(parsed).arrays:
            array += 1
        assert [array.tolist() for array in decode_model(parsed).arrays] == [array.tolist() for array in before]


def test_what_is_not_finite_is_sent_as_it_is_and_not_owed() -> None:
    """The controller refuses it, naming the tensor; the next update is none the worse."""
    sender = Sender("topk", 0.1)
    spoilt = np.zeros(COUNT)
    spoilt[5] = np.nan
    with pytest.raises(NonFiniteUpdate, match="'w'"):
        check_finite(received(sender.code(trained(spoilt), MODEL)).tensors)
    assert np.isfinite(received(sender.code(trained(1), MODEL)).arrays[0]).all()


# ---- what is owed
def sent_of(update: Sequence[Tensor | Coded]) -> Array:
    """The difference of "w" that an update carries, in float64."""
    (one,) = [tensor for tensor in update if isinstance(tensor, Coded)]
    whole = np.zeros(COUNT)
    assert one.indices is not None
    whole[np.frombuffer(one.indices, "<u4")] = np.frombuffer(one.data, "<f4")
    return whole


def test_what_is_left_out_is_sent_later() -> None:
    """Two of 300 elements: 5 at 0 and 3 at 1 go first; the 2 at 2 and what grew at 1 meanwhile go next."""
    sender, step = Sender("topk", 2 / COUNT), np.zeros(COUNT)
    step[:3] = 5, 3, 2
    first = sent_of(sender.code(trained(step, flat := zeros()), flat))
    sender.taken()
    step[:3] = 0, 1, 0
    second = sent_of(sender.code(trained(step, flat), flat))
    assert (first[:4].tolist(), second[:4].tolist()) == ([5, 3, 0, 0], [0, 1, 2, 0])


def test_an_update_that_was_not_taken_is_owed_whole() -> None:
    """Refused, late or lost: the next one carries what both have trained."""
    sender, step = Sender("topk", 1 / COUNT), np.zeros(COUNT)
    step[:2] = 5, 3
    sender.code(trained(step, flat := zeros()), flat)
    step[:2] = 1, 0
    assert sent_of(sender.code(trained(step, flat), flat))[:2].tolist() == [6, 0]
    sender.taken()
    assert sent_of(sender.code(trained(np.zeros(COUNT), flat), flat))[:2].tolist() == [0, 3]


@settings(max_examples=50)
@given(rounds=st.lists(st.tuples(st.integers(0, 2**32), st.booleans()), min_size=1, max_size=8))
def test_nothing_is_lost_and_nothing_sent_twice(rounds: list[tuple[int, bool]]) -> None:
    """The sum of what was taken is the sum of what was trained, once rounds without training have emptied the rest."""
    sender, flat = Sender("topk", 0.25), zeros()
    wanted, got = np.zeros(COUNT), np.zeros(COUNT)
    for seed, taken in [*rounds, *[(0, True)] * 5]:
        step = np.random.default_rng(seed).standard_normal(COUNT) * bool(seed)
        update = sender.code(trained(step, flat), flat)
        wanted += np.float32(step)
        if taken:
            got += sent_of(update)
            sender.taken()
    assert sent_of(sender.code(trained(0, flat), flat)).tolist() == [0] * COUNT
    assert got == pytest.approx(wanted, abs=1e-5)


def test_int8_updates_add_up_to_what_was_trained() -> None:
    """Towards a target that other learners hold the model away from, the sum of what was sent is not pulled aside."""
    random = np.random.default_rng(1)
    sender, flat, wanted, got = Sender("int8"), zeros(), np.zeros(COUNT), np.zeros(COUNT)
    step = random.standard_normal(COUNT)
    for _ in range(50):
        (one,) = [tensor for tensor in sender.code(trained(step, flat), flat) if isinstance(tensor, Coded)]
        wanted += np.float32(step)
        got += np.frombuffer(one.data, np.int8) * np.float64(one.scale or 0)
        sender.taken()
    coarse = np.abs(step).max() / 127
    assert np.abs(got - wanted).max() <= coarse  # without feedback up to 50 halves of it


def zeros() -> list[Tensor | Coded]:
    """The model, "w" zeros."""
    return [MODEL[0]._replace(array=np.zeros(COUNT, np.float32)), *MODEL[1:]]
