"""What a learner tells beside its results is kept until it is much in all of a run; then little of each is."""

from __future__ import annotations

from typing import Any

import pytest

from services.federation import Federation
from services.federation.allowance import FREE_BYTES, Allowance, _bytes
from services.federation.rounds import Outcome
from services.state import Recorder, restore
from tests.services.fleet import EPOCH, Fleet

MANY: dict[str, Any] = {f"metric-{i:04}": 0.5 for i in range(1000)}
ROUNDS: dict[str, Any] = {
    "termination": {"federation_rounds": 20, "evaluation_metric": "watched", "patience_rounds": 9}
}


def size_of(entries: dict[str, Any]) -> int:
    """As an allowance counts it."""
    return sum(_bytes(key, value) for key, value in entries.items())


def test_a_spender_tells_less_and_the_others_all() -> None:
    """In two results Eve has told what she may in the run: the third is shortened, its watched metric stays, and it is
    said once; Anna's are whole."""
    allowance = Allowance(2 * size_of(MANY), "watched")
    told = [allowance.keep("eve", Outcome("f", 1, {**MANY, "watched": 0.9}, {"note": "x" * 9000})) for _ in range(4)]
    assert [len(one.metrics) for one, _ in told[:1]] == [1001]
    assert [first for _, first in told] == [False, True, False, False]
    for one, _ in told[1:]:
        assert one.metrics["watched"] == 0.9
        assert one.metadata == {}
        assert size_of(dict(one.metrics)) <= FREE_BYTES // 2
        assert list(one.metrics) == [key for key in {**MANY, "watched": 0.9} if key in one.metrics]
    assert allowance.keep("anna", Outcome("f", 1, MANY))[0].metrics == MANY


def test_little_may_be_told_for_ever() -> None:
    """Ten metrics a round use nothing up."""
    allowance = Allowance(0)
    few: dict[str, Any] = {f"metric-{i}": 0.5 for i in range(10)}
    assert all(allowance.keep("anna", Outcome("f", 1, few)) == (Outcome("f", 1, few), False) for _ in range(100))


def test_what_rounds_are_made_of_stays() -> None:
    """Counts and times that rules and schedulers read come before all else."""
    needed = {"num_completed_batches": 3, "processing_ms_per_epoch": 9.0, "processing_ms_per_batch": 1.0}
    sent = {**{f"note-{i}": "x" * 1000 for i in range(9)}, **needed, "num_training_examples": 10}
    kept, first = Allowance(0).keep("eve", Outcome("f", 1, {}, sent))
    assert first
    assert {key: kept.metadata.get(key) for key in needed} == needed
    assert kept.metadata["num_training_examples"] == 10


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_keeps_little_of_who_tells_much(restarted: bool) -> None:
    """Its rounds, its combined scores and its log; also by a controller that began with what was written."""
    fleet = Fleet("anna", "eve")
    fleet.federation = Federation({}, EPOCH, lambda: f"id-{next(fleet._ids)}", told_bytes=3 * size_of(MANY))
    for name in ("anna", "eve"):
        fleet.join(name)
    run = fleet.train(**ROUNDS)
    for number in range(1, 7):
        for name in ("anna", "eve"):
            fleet.do(name, loss=0.1, **(MANY if name == "eve" else {}))
        fleet.aggregate()
        for name in ("anna", "eve"):
            fleet.do(name, "evaluate", watched=0.1)
        if restarted and number == 4:
            made = Federation({}, EPOCH, lambda: f"id-{next(fleet._ids)}", told_bytes=3 * size_of(MANY))
            restore(made, Recorder(fleet.federation).take().rows)
            fleet.federation, run = made, made.runs[run.id]
    told = [len(one.train[fleet.ids["eve"]].outcome.metrics) for one in run.rounds[:6]]  # type: ignore[union-attr]
    assert told[:3] == [1001, 1001, 1001]
    assert max(told[3:]) < 40
    assert all(len(one.train[fleet.ids["anna"]].outcome.metrics) == 1 for one in run.rounds[:6])  # type: ignore[union-attr]
    assert all("loss" in one.train[fleet.ids["eve"]].outcome.metrics for one in run.rounds[:6])  # type: ignore[union-attr]
