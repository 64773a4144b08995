"""Failed tasks: a line that is shown everywhere, a traceback that is kept as far as its learner may tell more."""

from __future__ import annotations

import json

from services.federation import Federation
from services.federation.allowance import ENTRY_BYTES
from services.state import Recorder, Row, restore
from tests.services.fleet import EPOCH, Fleet

TRACE = "Traceback (most recent call last):\n" + "  …\n" * 30 + "MemoryError: 8 GB"
LONG = {"termination": {"federation_rounds": 90}, "schedule": {"lease_s": 1000}}


def fleet_of(told_bytes: int) -> Fleet:
    """Anna works, Eve fails; each may tell so much."""
    fleet = Fleet()
    fleet.federation = Federation({}, EPOCH, lambda: f"id-{next(fleet._ids)}", told_bytes=told_bytes)
    for name in ("anna", "eve"):
        fleet.join(name)
    return fleet


def fail_a_round(fleet: Fleet, traceback: str | None = TRACE) -> None:
    """Eve fails, Anna's update makes the model, Anna evaluates it; so does Eve."""
    fleet.fail("eve", "MemoryError: 8 GB", traceback)
    fleet.do("anna")
    fleet.aggregate()
    for name in ("anna", "eve"):
        fleet.do(name, "evaluate")


def taken_up(fleet: Fleet) -> Federation:
    """By another process."""
    made = Federation({}, EPOCH, lambda: f"id-{next(fleet._ids)}", told_bytes=fleet.federation._told_bytes)
    restore(made, Recorder(fleet.federation).take().rows)
    return made


def test_tracebacks_are_counted_into_what_a_learner_may_tell() -> None:
    """Two fit: the third and all after it, also after a restart, leave a line; it is said once, and Anna may tell."""
    fleet = fleet_of(2 * (ENTRY_BYTES + len(TRACE)))
    run = fleet.train(**LONG)
    kinds: list[str] = []
    for number in range(1, 6):
        fail_a_round(fleet)
        kinds += fleet.kinds()
        if number == 4:
            fleet.federation = taken_up(fleet)
            run = fleet.federation.runs[run.id]
    told = [one.train[fleet.ids["eve"]] for one in run.rounds[:5]]
    assert [one.traceback for one in told] == [TRACE, TRACE, None, None, None]
    assert {one.reason for one in told} == {"MemoryError: 8 GB"}
    assert kinds.count("result-shortened") == 2  # once in each process
    fleet.fail("anna", "MemoryError: 8 GB", TRACE)
    assert run.rounds[5].train[fleet.ids["anna"]].traceback == TRACE


def test_a_line_without_a_traceback_uses_nothing_up() -> None:
    """It may be told for ever, and nothing is said of it."""
    fleet = fleet_of(0)
    fleet.train(**LONG)
    for _ in range(3):
        fail_a_round(fleet, None)
    assert "result-shortened" not in fleet.kinds()


def test_reports_of_a_thousand_rounds_do_not_make_the_state_grow() -> None:
    """Each as long as it may be: what is written of a failed task is a line, once the allowance is used up."""
    fleet = fleet_of(10_000)
    fleet.train(**LONG)
    recorder = Recorder(fleet.federation)
    for number in range(20):
        task = fleet.fail("eve", "x" * 20_000, "y\n" * 4_000)
        rows = {row.key: row for row in recorder.take().rows if row.kind == "task"}
        if number > 10:
            assert len(rows[task.id].data or b"") < 2_000
        fleet.do("anna")
        fleet.aggregate()
        for name in ("anna", "eve"):
            fleet.do(name, "evaluate")
    assert max(len(event.text) + len(repr(event.data)) for event in fleet.events() if "failed" in event.kind) < 2_000


def test_what_0_1_wrote_is_split_when_it_is_read() -> None:
    """It kept all that a learner told as the reason."""
    fleet = fleet_of(10_000)
    run = fleet.train(**LONG)
    failed = fleet.fail("eve")
    rows = Recorder(fleet.federation).take().rows
    old = [row for row in rows if row.key == failed.id]
    told = json.loads(old[0].data or b"")
    del told["traceback"]
    told["reason"] = TRACE
    made = Federation({}, EPOCH, lambda: "none")
    restore(made, [*(row for row in rows if row not in old), Row(*old[0][:3], json.dumps(told).encode())])
    (read,) = [task for task in made.runs[run.id].tasks() if task.id == failed.id]
    assert (read.reason, read.traceback) == ("MemoryError: 8 GB", TRACE)
    assert made.runs[run.id].rounds[0].message(made.journal.iso).failed == {"eve": "MemoryError: 8 GB"}
