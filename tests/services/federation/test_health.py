"""Learners whose updates are refused: counted by rounds, put aside after three, let back."""

from __future__ import annotations

from typing import Any

from services import messages as m
from services.failures import LINE
from services.federation import Federation
from services.federation.health import REFUSED_ROUNDS
from services.state import Recorder, restore
from tests.services.fleet import EPOCH, Fleet

WHY = "tensor 'w' holds NaN or infinity"
NINE = {"federation_rounds": 9}


def health(fleet: Fleet, name: str) -> tuple[str, str | None]:
    """As the contract shows it."""
    member = fleet.federation.roster.get(fleet.ids[name])
    shown = fleet.federation.learner_message(member, fleet.now)
    return shown.health, shown.health_reason


def begun(**config: Any) -> Fleet:
    """Three learners in round 1."""
    fleet = Fleet("a", "b", "c")
    fleet.train(**{"termination": NINE, "evaluation": {"every": 0}, **config})
    return fleet


def refused_rounds(fleet: Fleet, rounds: int = REFUSED_ROUNDS) -> None:
    """Rounds in which the updates of c are refused, which then reports a failure as the agent does; a and b do well."""
    for _ in range(rounds):
        fleet.refuse("c", WHY)
        if fleet.poll("c") is not None:
            fleet.fail("c", f"non-finite-update: {WHY}")
        fleet.do("a")
        fleet.do("b")
        fleet.aggregate()


def test_three_rounds_in_a_row_put_a_learner_aside() -> None:
    """It has no task any more, the rounds go on with the others, and the reason is told in words."""
    fleet = begun()
    assert health(fleet, "c") == ("ok", None)
    refused_rounds(fleet, 2)
    assert health(fleet, "c")[0] == "failing"
    fleet.events()
    task = fleet.refuse("c", WHY)
    reason = f"its updates were refused in 3 rounds in a row, the last one: {WHY}"
    assert health(fleet, "c") == ("aside", reason)
    assert (task.state, task.reason) == ("void", f"the learner is put aside: {reason}")
    told = [(event.kind, event.text) for event in fleet.events()]
    assert told == [
        ("update-refused", f"c's update was refused: {WHY}"),
        (
            "learner-aside",
            f"c is put aside and gets no tasks: {reason}; once that is mended, `metis readmit c` or its restart lets it"
            " back",
        ),
    ]
    fleet.do("a")
    fleet.do("b")
    fleet.aggregate()
    assert fleet.poll("c") is None
    (run,) = fleet.federation.runs.values()
    assert [task.learner for task in run.rounds[-1].train.values()] == ["a", "b"]
    assert run.rounds[2].message(str).failed == {"c": f"the learner is put aside: {reason}"}


def test_rounds_are_counted_not_bodies() -> None:
    """A learner may try again in its round as often as it likes."""
    fleet = begun()
    for _ in range(10):
        fleet.refuse("c")
    assert health(fleet, "c")[0] == "failing"
    assert fleet.kinds().count("update-refused") == 1


def test_an_update_that_is_taken_begins_anew() -> None:
    """Two rounds, a good one, two rounds: failing, not aside."""
    fleet = begun()
    refused_rounds(fleet, 2)
    for name in "abc":
        fleet.do(name)
    assert health(fleet, "c") == ("ok", None)
    fleet.aggregate()
    refused_rounds(fleet, 2)
    assert health(fleet, "c")[0] == "failing"


def test_an_operator_lets_a_learner_back() -> None:
    """It is a member of the next round, and three more are needed to put it aside again. To ask twice is no error."""
    fleet = begun()
    refused_rounds(fleet)
    fleet.events()
    for _ in range(2):
        fleet.federation.readmit(fleet.ids["c"], fleet.now)
    assert [event.text for event in fleet.events()] == ["c gets tasks again: an operator let it back"]
    assert health(fleet, "c") == ("ok", None)
    fleet.do("a")
    fleet.do("b")
    fleet.aggregate()
    refused_rounds(fleet, 2)
    assert health(fleet, "c")[0] == "failing"


def test_its_own_restart_lets_a_learner_back() -> None:
    """It reports back under its token; a newcomer under the name of one that was lost begins well, too."""
    fleet = begun()
    refused_rounds(fleet)
    fleet.federation.rejoin(fleet.ids["c"], m.JoinRequest(name="c"), fleet.now)
    assert health(fleet, "c") == ("ok", None)


def test_asynchronous_runs_put_aside_too() -> None:
    """Three tasks in a row."""
    fleet = begun(scheduler="Asynchronous", aggregation_rule="FedAsync")
    for rounds in range(REFUSED_ROUNDS):
        assert health(fleet, "c")[0] == ("failing" if rounds else "ok")
        fleet.refuse("c")
        if rounds + 1 < REFUSED_ROUNDS:
            fleet.fail("c")
        fleet.do("a")
        fleet.aggregate()
    assert health(fleet, "c")[0] == "aside"
    assert (fleet.poll("c"), fleet.poll("a") is None) == (None, False)


def test_a_run_that_waits_says_who_is_put_aside() -> None:
    """And what lets it back."""
    fleet = begun(termination={"federation_rounds": 3})
    refused_rounds(fleet)
    other = fleet.federation.start({"min_learners": 3, "termination": NINE}, fleet.now)
    assert fleet.waiting_for(other) == (
        "waiting for 1 more of 3 learners; here: a, b; put aside: c (`metis readmit c`); gives up in 3600 s"
    )
    fleet.stay(3601)
    assert other.reason == "only 2 of 3 learners came within 3600 s; put aside: c (`metis readmit c`)"


def test_who_is_put_aside_stays_so_over_a_restart() -> None:
    """With the reason, and with the count of one that is failing."""
    fleet = begun()
    refused_rounds(fleet)
    fleet.refuse("a")
    made = Federation({}, EPOCH, lambda: "none")
    restore(made, Recorder(fleet.federation).take().rows)
    shown = {one.name: (one.refused, one.refused_task, one.aside) for one in made.roster}
    assert shown == {one.name: (one.refused, one.refused_task, one.aside) for one in fleet.federation.roster}
    assert {name: (count, aside is not None) for name, (count, _, aside) in shown.items()} == {
        "a": (1, False),
        "b": (0, False),
        "c": (3, True),
    }


def test_reasons_are_bounded() -> None:
    """They quote what a learner sent."""
    fleet = begun()
    for _ in range(REFUSED_ROUNDS):
        fleet.refuse("c", "x" * 10_000)
        if fleet.poll("c"):
            fleet.fail("c")
        fleet.do("a")
        fleet.do("b")
        fleet.aggregate()
    assert len(health(fleet, "c")[1] or "") < LINE + 100
    assert all(len(event.text) < LINE + 300 for event in fleet.events())
