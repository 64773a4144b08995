"""Schedules of hyper-parameters: their values by round, what is refused, and what reaches the learner."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import RunConfig, load, resolve
from services.errors import InvalidConfig
from services.federation import check_names, plan
from services.schedules import at_round
from tests.services.federation.test_plan import configured
from tests.services.fleet import Fleet

WHOLE = {"whole": True}


def values(schedule: dict[str, Any], base: Any, *rounds: int) -> list[Any]:
    """What a learner is given as `x` in these rounds; without a base the run gives none."""
    parameters = {"y": "kept"} | ({} if base is None else {"x": base})
    config = resolve({}, {"train": parameters, "train_schedule": {"x": schedule}})
    found = [at_round(config.train, config.train_schedule, number) for number in rounds]
    assert all(one["y"] == "kept" for one in found)
    assert config.train == parameters
    return [one["x"] for one in found]


# ---- values
def test_step() -> None:
    """Times a half after every three rounds."""
    schedule = {"kind": "step", "every": 3, "decay": 0.5}
    assert values(schedule, 0.8, *range(1, 10)) == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2]


def test_exponential() -> None:
    """Times a half after every round; it never overflows, and ends at zero."""
    assert values({"kind": "exponential", "decay": 0.5}, 2, 1, 2, 3, 4) == [2, 1, 0.5, 0.25]
    assert values({"kind": "exponential", "decay": 0.5}, 1e300, 10**9) == [0]
    assert values({"kind": "exponential", "decay": 1}, 0.3, 1, 1000) == [0.3, 0.3]


def test_linear() -> None:
    """In equal steps down, or up as a warm-up; the end stays."""
    assert values({"kind": "linear", "to": 0.0, "rounds": 5}, 1.0, *range(1, 8)) == [1, 0.75, 0.5, 0.25, 0, 0, 0]
    assert values({"kind": "linear", "to": 10, "rounds": 3}, 0, 1, 2, 3, 4) == [0, 5, 10, 10]


def test_cosine() -> None:
    """Half a cosine: slowly, fast in the middle, slowly; by hand at the quarters of five rounds."""
    quarter = (1 + math.sqrt(0.5)) / 2
    shown = values({"kind": "cosine", "rounds": 5}, 2.0, 1, 2, 3, 4, 5, 6)
    assert shown == pytest.approx([2, 2 * quarter, 1, 2 * (1 - quarter), 0, 0])
    assert shown[-1] == 0
    assert values({"kind": "cosine", "rounds": 3, "to": 0.1}, 0.5, 1, 3, 99) == [0.5, 0.1, 0.1]
    assert values({"kind": "cosine", "rounds": 3, "to": 0.1}, 0.5, 2) == pytest.approx([0.3])


def test_list() -> None:
    """The values one after the other, whatever they are; the last one stays, and nothing need be in `train`."""
    assert values({"kind": "list", "values": [1, 0.5, True, "sgd"]}, None, 1, 2, 3, 4, 5) == [
        1,
        0.5,
        True,
        "sgd",
        "sgd",
    ]
    config = resolve({}, {"train_schedule": {"z": {"kind": "list", "values": [7]}}})
    assert at_round(config.train, config.train_schedule, 3) == {"z": 7}


def test_whole_numbers() -> None:
    """`whole` rounds, half to even, and gives integers; without it five epochs become 3.5."""
    schedule = {"kind": "linear", "to": 2, "rounds": 3}
    assert values(schedule, 5, 1, 2, 3) == [5, 3.5, 2]
    rounded = values(schedule | WHOLE, 5, 1, 2, 3)
    assert rounded == [5, 4, 2]
    assert all(type(one) is int for one in rounded)
    assert values({"kind": "list", "values": ["a", True, 2.5]} | WHOLE, None, 1, 2, 3) == ["a", True, 2]


def test_before_the_first_round_it_is_the_first() -> None:
    """Model 0 is made, and evaluated, with the values of round 1."""
    assert values({"kind": "list", "values": [3, 4]}, None, 0, 1, 2) == [3, 3, 4]
    assert values({"kind": "linear", "to": 0, "rounds": 2}, 8, 0, 1) == [8, 8]


@given(
    schedule=st.fixed_dictionaries({"kind": st.just("step"), "every": st.integers(1, 50), "decay": st.floats(1e-6, 1)})
    | st.fixed_dictionaries({"kind": st.just("exponential"), "decay": st.floats(1e-6, 1)})
    | st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["linear", "cosine"]),
            "to": st.floats(allow_nan=False, allow_infinity=False),
            "rounds": st.integers(2, 10**9),
        }
    ),
    base=st.floats(-1e300, 1e300) | st.integers(-(10**299), 10**299),
    number=st.integers(1, 10**9),
    whole=st.booleans(),
)
def test_every_value_is_a_number_between_the_ends(
    schedule: dict[str, Any], base: float, number: int, whole: bool
) -> None:
    """It begins at the base, lies between that and the end (zero for what decays), and can be sent as JSON."""
    first, value = values(schedule | {"whole": whole}, base, 1, number)
    end = schedule.get("to", 0)
    if not whole:
        assert first == float(base)
        slack = 1e-9 * max(abs(base), abs(end))
        assert min(base, end) - slack <= value <= max(base, end) + slack
    json.dumps(value, allow_nan=False)


# ---- what is refused
@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ({}, r"train_schedule.x.kind: missing; known: step, exponential, linear, cosine, list"),
        ({"kind": "stp"}, r"train_schedule.x.kind: there is no 'stp'; did you mean step\?"),
        ({"kind": "cosine"}, r"train_schedule.x.cosine.rounds: missing"),
        ({"kind": "linear", "rounds": 5}, r"train_schedule.x.linear.to: missing"),
        ({"kind": "linear", "to": 0, "rounds": 1}, r"linear.rounds: .*\(got 1\)"),
        ({"kind": "step", "evry": 3, "decay": 0.5}, r"step.evry: unknown key; did you mean every\?"),
        ({"kind": "step", "every": 0, "decay": 0.5}, r"step.every: .*\(got 0\)"),
        ({"kind": "exponential", "decay": 1.01}, r"exponential.decay: .*\(got 1.01\)"),
        ({"kind": "exponential", "decay": 0}, r"exponential.decay: .*\(got 0\)"),
        ({"kind": "list", "values": []}, r"list.values: .*\(got \[\]\)"),
        ({"kind": "list", "values": [[1]]}, r"list.values"),
        ({"kind": "list", "values": [0] * 10_001}, r"list.values: .*\(got \[0, 0, "),
        (0.1, r"train_schedule.x: .*\(got 0.1\)"),
    ],
)
def test_what_cannot_be_is_refused(schedule: Any, why: str) -> None:
    """When the configuration is read, with the place and what is known there."""
    with pytest.raises(InvalidConfig, match=why):
        resolve({}, {"train": {"x": 1}, "train_schedule": {"x": schedule}})


@pytest.mark.parametrize("base", [None, "0.1", True, 10**301, 1e301, [0.1]])
@pytest.mark.parametrize("table", ["train", "evaluate"])
def test_a_schedule_needs_a_number_to_begin_at(table: str, base: Any) -> None:
    """Refused when the run is posted, naming the key; a controller's defaults may leave it to the run."""
    by_round = {f"{table}_schedule": {"x": {"kind": "exponential", "decay": 0.5}}}
    config = configured(**by_round, **{table: {"x": base}})
    with pytest.raises(InvalidConfig, match=f"{table}_schedule.x: begins at the number {table}.x") as caught:
        plan(config)
    assert caught.value.values["key"] == f"{table}.x"
    assert check_names(config)
    assert plan(configured(**by_round, **{table: {"x": 0.1}}))


# ---- what reaches the learner
def test_a_file_says_it_and_the_configuration_shows_it(tmp_path: Path) -> None:
    """As a table of its own or in a line; it is sent, and shown with the run, as it was written."""
    file = tmp_path / "federation.toml"
    file.write_text(
        "[train]\nlearning_rate = 0.1\nepochs = 3\n"
        "[train_schedule]\nepochs = {kind = 'list', values = [3, 2, 1]}\n"
        "[train_schedule.learning_rate]\nkind = 'step'\nevery = 10\ndecay = 0.5\n"
    )
    config = resolve({}, load(file))
    shown = config.model_dump(mode="json")
    assert shown["train_schedule"] == {
        "epochs": {"kind": "list", "values": [3, 2, 1], "whole": False},
        "learning_rate": {"kind": "step", "every": 10, "decay": 0.5, "whole": False},
    }
    assert RunConfig.model_validate(shown) == config


def test_each_task_has_the_values_of_its_round() -> None:
    """Training and evaluation each by their own schedule; a task that is offered again has the same values."""
    fleet = Fleet("a")
    fleet.start(
        train={"rate": 1.0, "epochs": 3},
        evaluate={"rows": 100},
        train_schedule={"rate": {"kind": "exponential", "decay": 0.5}},
        evaluate_schedule={"rows": {"kind": "list", "values": [100, 50]}},
    )

    def told(kind: str) -> dict[str, Any]:
        task = fleet.task("a", kind)
        message = fleet.federation.task_message(task, fleet.now)
        assert fleet.federation.task_message(task, fleet.now + 1).config == message.config
        fleet.do("a", kind)
        return {name: value for name, value in message.config.items() if name != "seed"}

    assert told("init") == {"rate": 1.0, "epochs": 3, "round": 0}
    for number, rate, rows in ((1, 1.0, 100), (2, 0.5, 50), (3, 0.25, 50)):
        assert told("train") == {"rate": rate, "epochs": 3, "round": number}
        fleet.aggregate()
        assert told("evaluate") == {"rows": rows, "round": number}


def test_a_schedule_that_cannot_be_is_no_run() -> None:
    """The federation refuses it and stays idle."""
    fleet = Fleet("a")
    with pytest.raises(InvalidConfig, match=r"train\.rate"):
        fleet.start(train_schedule={"rate": {"kind": "exponential", "decay": 0.5}})
    assert not fleet.federation.runs
