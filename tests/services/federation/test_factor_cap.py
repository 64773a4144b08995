"""Scaling factors that are far above the others': what they count, in rounds and as updates come, and who is told."""

from __future__ import annotations

from typing import Any

import pytest

from services import messages as m
from services.federation import Aggregation, Federation
from services.state import Recorder, Row, restore
from tests.services.fleet import EPOCH, Fleet

MOST = 2.0**53
NAMES = ("a", "b", "c", "d", "mallory")
HONEST = {"a": 500.0, "b": 600.0, "c": 700.0, "d": 400.0}
ASYNCHRONOUS: dict[str, Any] = {"scheduler": "Asynchronous", "evaluation": {"every": 0}}
NINE = {"federation_rounds": 9}


def counts(job: Aggregation) -> dict[str, float]:
    """What each update counts."""
    return {share.learner: share.factor for share in job.shares}


def fleet_of(*names: str) -> Fleet:
    """Honest learners, and one that says as much as it may."""
    fleet = Fleet(*names)
    fleet.factors = {**HONEST, "mallory": MOST}
    return fleet


def one_round(fleet: Fleet) -> Aggregation:
    """Everybody trains."""
    for name in fleet.ids:
        fleet.do(name)
    return fleet.aggregate()


class Kept:
    """What is written of a fleet, of which its federation is made again."""

    def __init__(self, fleet: Fleet) -> None:
        self._recorder = Recorder(fleet.federation)
        self._rows: dict[tuple[str, str], Row] = {}

    def again(self) -> Federation:
        """As it is now."""
        self._rows |= {(row.kind, row.key): row for row in self._recorder.take().rows}
        made = Federation({}, EPOCH, lambda: "none")
        restore(made, [row for row in self._rows.values() if row.data])
        return made


def test_a_factor_above_the_cap_counts_as_the_cap() -> None:
    """1,000 times the median of 400, 500, 600 and 700; the round, its event and the manifest say so."""
    fleet = fleet_of(*NAMES)
    run = fleet.train(scaling_factor="NumTrainingExamples")
    fleet.events()
    assert counts(one_round(fleet)) == {**HONEST, "mallory": 550_000.0}
    shown = run.rounds[0].message(str)
    assert shown.capped == {"mallory": m.Capped(factor=MOST, counts=550_000.0)}
    (told,) = [event for event in fleet.events() if event.kind == "factor-capped"]
    assert (told.learner, told.round, dict(told.data)) == ("mallory", 1, {"factor": MOST, "counts": 550_000.0})
    assert told.text == (
        "round 1: mallory's factor 9.0072e+15 counts as 550000: it is more than 1000 times the others' median"
        " (schedule.factor_cap)"
    )
    manifest = fleet.federation.changes.manifests[-1]
    assert {one.learner: one.factor for one in manifest.updates} == {**HONEST, "mallory": 550_000.0}
    records = [task.record() for task in run.rounds[0].train.values()]
    assert {one.learner: one.factor for one in records} == {**HONEST, "mallory": MOST}


@pytest.mark.parametrize(("cap", "expected"), [(10, 5_500.0), ("none", MOST)])
def test_the_cap_is_a_number_or_none(cap: Any, expected: float) -> None:
    """As the run's configuration has it."""
    fleet = fleet_of(*NAMES)
    run = fleet.train(schedule={"factor_cap": cap})
    assert counts(one_round(fleet))["mallory"] == expected
    assert bool(run.rounds[0].capped) == (expected != MOST)


def test_scores_are_weighted_within_the_cap() -> None:
    """The training's scores by what the updates count, evaluations by examples that are capped alike."""
    fleet = Fleet("a", "b", "mallory")
    fleet.factors = {"mallory": MOST}
    run = fleet.train(schedule={"factor_cap": 2})
    for name in fleet.ids:
        fleet.do(name, loss=8.0 if name == "mallory" else 4.0)
    fleet.aggregate()
    for name in fleet.ids:
        task = fleet.task(name, "evaluate")
        examples = MOST if name == "mallory" else 1.0
        fleet.give(task, loss=8.0 if name == "mallory" else 4.0, num_evaluation_examples=examples)
    shown = run.rounds[0].message(str)
    assert (shown.train_metrics.combined, shown.evaluation_metrics.combined) == ({"loss": 6.0}, {"loss": 6.0})


def test_everybody_s_newest_update_is_compared_with_the_others() -> None:
    """FedAvg as updates come: from the third learner on, and anew in each model."""
    fleet = fleet_of("mallory", "a", "b")
    fleet.train(**ASYNCHRONOUS, aggregation_rule="FedAvg", termination=NINE)
    made = []
    for name in ("mallory", "a", "b", "a"):
        fleet.do(name)
        made.append(counts(fleet.aggregate()))
    assert made[:2] == [{"mallory": MOST}, {"a": 500.0, "mallory": MOST}]
    assert made[2:] == [{"a": 500.0, "b": 600.0, "mallory": 550_000.0}] * 2


def test_a_rule_that_holds_updates_takes_out_what_it_put_in() -> None:
    """FedRec: one that comes is compared with those in the state, and leaves it with what it counted; a learner that
    leaves has all counted anew. A restart in between changes nothing."""
    fleet = fleet_of("a", "b", "mallory")
    kept = Kept(fleet)
    run = fleet.train(**ASYNCHRONOUS, aggregation_rule="FedRec", termination=NINE)
    for name in "ab":
        fleet.do(name)
        fleet.aggregate()
    fleet.do("mallory")
    first = fleet.aggregate()
    assert (counts(first), dict(first.beside)) == ({"mallory": 550_000.0}, {"a": 500.0, "b": 600.0})
    fleet.factors["mallory"] = 7.0
    fleet.do("mallory")
    restored = kept.again().due()
    second = fleet.aggregate()
    for job in (second, restored):
        assert job is not None
        (share,) = job.shares
        assert (share.factor, share.previous and share.previous.factor) == (7.0, 550_000.0)
        assert dict(job.beside) == {"a": 500.0, "b": 600.0}
    (manifest,) = fleet.federation.changes.manifests
    assert (manifest.beside, manifest.updates[0].previous and manifest.updates[0].previous.factor) == (
        {"a": 500.0, "b": 600.0},
        550_000.0,
    )
    fleet.factors["a"] = MOST
    fleet.do("a")
    assert counts(fleet.aggregate()) == {"a": 303_500.0}  # 1,000 · (600 + 7) / 2
    fleet.leave("b")
    fleet.do("mallory")
    job = fleet.aggregate()
    assert counts(job) == {"a": MOST, "mallory": 7.0}  # two are left
    assert (job.aggregator_state, dict(job.beside)) == (None, {})
    newest = {share.learner: share.factor for share in kept.again().runs[run.id].stream.newest.values()}
    assert newest == {share.learner: share.factor for share in run.stream.newest.values()} == counts(job)


def test_what_was_capped_outlives_a_restart() -> None:
    """The round says the same, and a round that is open goes on with its cap."""
    fleet = fleet_of(*NAMES)
    run = fleet.train()
    one_round(fleet)
    for name in fleet.ids:
        fleet.do(name, "evaluate")
    for name in fleet.ids:
        fleet.do(name)
    made = Kept(fleet).again()
    assert made.runs[run.id].rounds[0].message(str) == run.rounds[0].message(str)
    job = made.due()
    assert job is not None
    assert counts(job) == {**HONEST, "mallory": 550_000.0}


def test_a_run_of_a_version_without_a_cap_goes_on_without() -> None:
    """Its stored configuration has no such key: the rounds to come are made as those that were."""
    fleet = fleet_of(*NAMES)
    run = fleet.train()
    rows = {(row.kind, row.key): row for row in Recorder(fleet.federation).take().rows}
    key = ("run", run.id)
    text = (rows[key].data or b"").replace(b'"factor_cap":1000.0,', b"")
    assert text != rows[key].data
    rows[key] = rows[key]._replace(data=text)
    rounds = ("round", f"{run.id}/1")
    text = (rows[rounds].data or b"").replace(b'"factor_cap":1000.0,', b"").replace(b'"capped":{},', b"")
    assert text.count(b"cap") == 0
    rows[rounds] = rows[rounds]._replace(data=text)
    other = Fleet()
    other.federation = Federation({}, EPOCH, iter(map(str, range(10**6))).__next__)
    other.ids, other.factors = fleet.ids, fleet.factors
    restore(other.federation, rows.values())
    assert other.federation.runs[run.id].config.schedule.factor_cap == "none"
    for number in (1, 2):
        assert counts(one_round(other))["mallory"] == MOST, number
        for name in other.ids:
            other.do(name, "evaluate")
