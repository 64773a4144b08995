"""What a run keeps beside the model is the mean of what the learners that are here hold, whoever comes and goes."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from services.federation import Held, ModelInfo, Outcome, RoundState, Shift
from services.federation.controls import Controls
from services.federation.rounds import Assignment

MODEL = ModelInfo("sha256-0", 1)


def closed(number: int, present: list[str], factors: Mapping[str, float]) -> RoundState:
    """A round whose updates are complete: of these learners, with these factors."""
    one = RoundState(number, MODEL, 0.0, 1.0, 1, present=sorted({*present, *factors}) if present else [])
    for name, factor in factors.items():
        task = Assignment(f"{name}{number}", "train", name, name, "run", number, MODEL, MODEL, "none", 0.0, 1.0)
        task.state = "accepted"
        task.outcome = Outcome("", 1, factor=factor, blob=f"{name}/{number}")
        one.train[name] = task
    return one


class World:
    """Numbers in place of tensors: each learner's own, what is stored, and the run's."""

    def __init__(self) -> None:
        self.controls = Controls()
        self.own: dict[str, float] = {}
        self.factors: dict[str, float] = {}
        self.stored: dict[str, float] = {}
        self.mean = 0.0

    def round(
        self, number: int, present: list[str], changes: Mapping[str, float], factors: Mapping[str, float]
    ) -> Shift:
        """The learners' own change by this much; as the engine does it."""
        one = closed(number, present, {name: factors[name] for name in changes})
        shift = self.controls.shift_of(one, weighted=True)
        assert shift is not None
        total = self.mean * shift.before
        for name, change in changes.items():
            before, weight = shift.members.get(name), shift.weights[name]
            known = self.stored[before.blob] if before else 0.0
            total += weight * change + ((weight - before.weight) * known if before else 0.0)
            self.stored[f"{name}/{number}"] = known + change
            self.own[name] = self.own.get(name, 0.0) + change
            self.factors[name] = factors[name]
        total += sum(held.weight * self.stored[held.blob] for held in shift.came)
        total -= sum(held.weight * self.stored[held.blob] for held in shift.went)
        self.mean = total / shift.after
        self.controls.take(one, shift)
        return shift

    def expected(self, present: list[str]) -> float:
        """The mean over who is here; who has sent nothing holds 0 and weighs as the others on average."""
        known = [name for name in self.own if name in present]
        weight = sum(self.factors[name] for name in known) / len(known) * len(present)
        return sum(self.factors[name] * self.own[name] for name in known) / weight


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_weighted_mean_of_who_is_here(seed: int) -> None:
    """In a walk of learners that come, are lost, return, leave for good, and whose weights change."""
    draw, world = random.Random(seed), World()
    everybody, gone = [f"learner-{i}" for i in range(8)], set[str]()
    for number in range(1, 80):
        here = sorted(name for name in everybody if name not in gone and draw.random() < 0.8) or everybody[:1]
        members = draw.sample(here, draw.randint(1, len(here)))
        if draw.random() < 0.05 and len(gone) < 4:  # leaves while its update is under way
            gone.add(members[0])
            world.controls.forget({members[0]}, pending=members)
            here = [name for name in here if name != members[0]]
        factors = {name: float(draw.randint(1, 100)) for name in members}
        world.round(number, here, {name: draw.uniform(-1, 1) for name in members}, factors)
        assert world.mean == pytest.approx(world.expected(sorted({*here, *members})), abs=1e-12)
        assert not {key for key in world.controls.held if key in gone} - world.controls.inside


def test_a_learner_that_joins_makes_the_share_of_the_others_smaller() -> None:
    """N_old / N_new of what it was."""
    world = World()
    world.round(1, ["a", "b"], {"a": 3.0, "b": 1.0}, {"a": 1, "b": 1})
    assert world.mean == 2
    shift = world.round(2, ["a", "b", "c", "d"], {"a": 0.0}, {"a": 1})
    assert (shift.before, shift.after, world.mean) == (2, 4, 1)


def test_a_learner_that_is_gone_takes_its_share_with_it_and_brings_it_back() -> None:
    """Of 3 and 1 remains 1; once a is here again, trained or not, it is 2."""
    world = World()
    world.round(1, ["a", "b"], {"a": 3.0, "b": 1.0}, {"a": 1, "b": 1})
    shift = world.round(2, ["b"], {"b": 0.0}, {"b": 1})
    assert ([held.blob for held in shift.went], world.mean) == (["a/1"], 1)
    world.round(3, ["a", "b"], {"b": 0.0}, {"b": 1})
    assert world.mean == 2


def test_a_change_that_is_no_part_of_a_model_is_not_counted() -> None:
    """The round of the newest update that is says so to the learner."""
    controls = Controls()
    first = closed(1, ["a"], {"a": 2.0})
    assert controls.counted("a") is None
    controls.take(first, controls.shift_of(first, weighted=True))
    controls.shift_of(closed(2, ["a"], {"a": 2.0}), weighted=True)  # its aggregation fails
    assert (controls.counted("a"), controls.held["a"]) == (1, Held(blob="a/1", weight=2.0, round=1))


def test_under_a_rule_that_looks_at_no_factors_everybody_weighs_the_same() -> None:
    """Krum, say: the optimum that it goes to is not weighted either."""
    shift = Controls().shift_of(closed(1, ["a", "b"], {"a": 5.0, "b": 7.0}), weighted=False)
    assert shift is not None
    assert (shift.weights, shift.after) == ({"a": 1.0, "b": 1.0}, 2)


def test_a_run_that_0_1_began_goes_on_as_it_was() -> None:
    """Rounds that told nobody's presence: each learner weighs 1, and nothing is known of what it holds."""
    controls = Controls()
    old = closed(1, [], {"a": 5.0, "b": 7.0})
    old.learners = 3
    assert controls.shift_of(old, weighted=True) is None
    controls.take(old, None)
    shift = controls.shift_of(closed(2, ["a", "b", "c"], {"a": 5.0}), weighted=True)
    assert shift is not None
    assert (shift.before, shift.after, shift.weights, shift.went) == (3, 3, {"a": 1.0}, ())
