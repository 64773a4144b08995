"""The manifest of a round: what it names, when it is written down, and what of the store is kept for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from services.config import canonical, resolve
from services.federation import Aggregation, ModelInfo, RunState, States
from services.federation.manifest import ARITHMETIC, Manifest, config_digest, manifest_of
from services.state import Recorder, Row, restore
from tests.services.fleet import Fleet, model, outcome

NINE = {"federation_rounds": 9}


def made(fleet: Fleet, job: Aggregation, states: States = (None, None)) -> Manifest:
    """The manifest of a job that is done now."""
    fleet.federation.aggregated(job, model(f"{job.run_id} {job.round}"), ({}, {}), 0.01, fleet.now, states)
    return fleet.federation.changes.manifests[-1]


def due(fleet: Fleet) -> Aggregation:
    """The aggregation that must be due."""
    job = fleet.federation.due()
    assert job is not None
    return job


def manifests(rows: list[Row]) -> list[Row]:
    """The manifests among rows."""
    return [row for row in rows if row.kind == "manifest"]


def test_it_names_what_went_in_and_what_came_out() -> None:
    """Updates in the order of the aggregation, by key, fingerprint and factor."""
    fleet = Fleet("b", "a")
    run = fleet.train(server_optimizer="FedAdam", termination=NINE)
    tasks = [fleet.do("b"), fleet.do("a")]
    job = due(fleet)
    manifest = made(fleet, job, (None, "state-1"))
    assert {"arithmetic": manifest.arithmetic, **manifest.model_dump(exclude_defaults=True)} == {
        "arithmetic": ARITHMETIC,
        "run_id": run.id,
        "round": 1,
        "config": config_digest(canonical(run.config.model_dump(mode="json"))),
        "rule": "FedAvg",
        "optimizer": "FedAdam",
        "learners": 2,
        "lineage_length": 0,
        "parent": job.parent.digest,
        "inputs": {},
        "updates": tuple(
            {"learner": name, "key": f"blob {task.id} {body}", "fingerprint": body, "factor": 1.0}
            for name, task in zip("ab", reversed(tasks), strict=True)
            for body in (f"result of {task.id}",)
        ),
        "states": (None, "state-1"),
        "model": model(f"{run.id} 1").digest,
        "model_inputs": {},
    }
    for name in "ab":
        fleet.do(name, "evaluate")
    for name in "ab":
        fleet.do(name)
    second = made(fleet, due(fleet))
    assert (second.states_before, second.parent) == ((None, "state-1"), manifest.model)


def test_what_was_changed_before_it_was_stored_has_a_fingerprint_of_its_own() -> None:
    """That of the body tells replays, that of what is stored tells the update."""
    fleet = Fleet("a")
    fleet.train(termination=NINE)
    task = fleet.task("a")
    fleet.federation.accept(task.id, replace(outcome(task, "sent"), stored="clipped"), fleet.now)
    assert [one.fingerprint for one in made(fleet, due(fleet)).updates] == ["clipped"]
    assert not fleet.give(task, "sent")[1]  # a replay


def test_updates_of_asynchronous_runs_tell_their_base_and_the_one_before() -> None:
    """FedRec takes the learner's last update out again; staleness is told."""
    fleet = Fleet("a", "b")
    run = fleet.train(scheduler="Asynchronous", aggregation_rule="FedRec", termination=NINE, evaluation={"every": 0})
    first_model = run.model
    assert first_model is not None
    slow = fleet.task("b")
    first, second = [made(fleet, due(fleet)).updates[0] for _ in "12" if fleet.do("a")]
    assert (first.learner, first.staleness, first.trained_from) == ("a", 0, first_model.digest)
    assert first.previous is None
    assert second.previous is not None
    assert (second.previous.key, second.previous.fingerprint) == (first.key, first.fingerprint)
    fleet.give(slow)
    (late,) = made(fleet, due(fleet)).updates
    assert (late.learner, late.staleness, late.trained_from) == ("b", 2, first_model.digest)


def test_it_is_written_in_the_batch_of_its_round_and_once() -> None:
    """Whoever finds the model of a round finds its manifest; a restored federation knows nothing of it."""
    fleet = Fleet("a")
    run = fleet.train(termination=NINE)
    writing = Recorder(fleet.federation)
    rows = writing.take().rows
    fleet.do("a")
    rows += writing.take().rows
    assert not manifests(rows)
    manifest = made(fleet, due(fleet))
    batch = writing.take().rows
    (row,) = manifests(batch)
    assert (row.key, row.run) == (f"{run.id}/1", run.id)
    assert Manifest.model_validate_json(row.data or b"") == manifest
    (round_row,) = [json.loads(row.data or b"") for row in batch if row.kind == "round"]
    assert round_row["model"]["digest"] == manifest.model
    fleet.do("a", "evaluate")
    assert not manifests(writing.take().rows)
    held = {(row.kind, row.key): row for row in [*rows, *batch]}
    again = Fleet()
    restore(again.federation, held.values())
    assert again.federation.runs[run.id].rounds[0].model == run.rounds[0].model
    assert not again.federation.changes


def test_a_run_that_ended_meanwhile_has_none() -> None:
    """Its last aggregation makes no model."""
    fleet = Fleet("a")
    run = fleet.train(termination=NINE)
    fleet.do("a")
    job = due(fleet)
    fleet.federation.stop(run.id, "enough", fleet.now)
    fleet.federation.aggregated(job, model("late"), (None, None), 0.01, fleet.now)
    assert not fleet.federation.changes.manifests


def test_the_digest_of_a_configuration_is_that_of_all_its_values() -> None:
    """sha256 of canonical JSON, so that other programs can tell it; any other value makes another one."""
    fleet = Fleet("a")
    run = fleet.train(seed=7, termination={"federation_rounds": 3})
    text = json.dumps(run.config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    assert run.config_text == text
    fleet.do("a")
    assert made(fleet, due(fleet)).config == f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"
    assert canonical(json.loads(run.config.model_dump_json())) == text
    assert config_digest(canonical(resolve({}, {"seed": 8}).model_dump(mode="json"))) != config_digest(text)


def test_a_configuration_stays_the_text_that_was_stored() -> None:
    """A program with one more key reads it, writes it as it was, and its manifests name the same digest."""
    fleet = Fleet("a")
    run = fleet.train(termination=NINE)
    rows = {(row.kind, row.key): row for row in Recorder(fleet.federation).take().rows}
    stored = json.loads(rows["run", run.id].data or b"")
    del stored["config"]["advance"]  # as if it were newer than what was stored
    rows["run", run.id] = rows["run", run.id]._replace(data=json.dumps(stored).encode())
    again = Fleet()
    restore(again.federation, rows.values())
    (restored,) = again.federation.runs.values()
    assert (restored.config.advance, restored.config_text) == ("auto", canonical(stored["config"]))
    again.federation.changes.runs.add(run.id)
    (row,) = [row for row in Recorder(again.federation).take().rows if row.kind == "run"]
    assert json.loads(row.data or b"")["config"] == stored["config"]


def test_a_manifest_of_the_first_version_names_no_arithmetic() -> None:
    """It is that of version 1."""
    fleet = Fleet("a")
    fleet.train(termination=NINE)
    fleet.do("a")
    manifest = made(fleet, due(fleet))
    assert Manifest.model_validate(manifest.model_dump(exclude={"arithmetic"})).arithmetic == 1


def test_what_goes_with_models_is_named() -> None:
    """SCAFFOLD's control: before and after."""
    fleet = Fleet("a")
    run = fleet.train(termination=NINE)
    fleet.do("a")
    job = due(fleet)
    before, after = model("control before"), model("control after")
    job = replace(job, parent=replace(job.parent, inputs={"control": before}))
    info = ModelInfo(model("made").digest, 1, inputs={"control": after})
    manifest = manifest_of(job, run, info, (None, None), 3)
    assert (manifest.inputs, manifest.model_inputs) == ({"control": before.digest}, {"control": after.digest})
    assert manifest.lineage_length == 3


def five_rounds(fleet: Fleet) -> RunState:
    """A run of five rounds whose first model is the best; each leaves a state."""
    run = fleet.train(termination={"federation_rounds": 5})
    for number in range(1, 6):
        fleet.do("a")
        made(fleet, due(fleet), (f"rule-{number}", f"optimizer-{number}"))
        fleet.do("a", "evaluate", accuracy=1 / number)
    assert run.over
    return run


@pytest.mark.parametrize(
    ("rounds", "parents", "states"), [(1, [4], []), (2, [3, 4], [3, 4, 5]), (3, [2, 3, 4], [2, 3, 4, 5])]
)
def test_what_can_be_verified_is_kept(rounds: int, parents: list[int], states: list[int]) -> None:
    """With k updates of each learner: the parents of the newest k models, and the states before and after them; with 1
    what is kept anyway."""
    fleet = Fleet("a")
    fleet.federation.runs.kept_rounds = rounds
    run = five_rounds(fleet)
    digests = {0: run.rounds[0].parent.digest, **{one.number: one.model.digest for one in run.rounds if one.model}}
    assert fleet.federation.kept_models() == {digests[number] for number in {1, *parents, 5}}
    kept = {f"{part}-{number}" for part in ("rule", "optimizer") for number in states}
    assert fleet.federation.runs.kept_states() == kept


def test_with_all_updates_everything_is_kept() -> None:
    """0 keeps all, of runs that have ended too."""
    fleet = Fleet("a")
    fleet.federation.runs.kept_rounds = 0
    run = five_rounds(fleet)
    models = {run.rounds[0].parent.digest, *(one.model.digest for one in run.rounds if one.model)}
    assert (fleet.federation.kept_models(), len(fleet.federation.runs.kept_states())) == (models, 10)
