"""Runs of a federation: one at a time, found by name, posted by calls that may be repeated, forgotten at last."""

from __future__ import annotations

from typing import Any

import pytest

from services.errors import DifferentBody, FederationError, FederationOver, InvalidConfig, RunActive, UnknownRun
from tests.services.fleet import THREE_ROUNDS, Fleet, dump


def test_one_run_at_a_time() -> None:
    """A second run is refused while one is active, and taken after its end."""
    fleet = Fleet("a")
    run = fleet.start()
    before = dump(fleet.federation)
    with pytest.raises(RunActive, match=f"run {run.id} is initializing") as caught:
        fleet.start(seed=1)
    assert caught.value.values == {"run": run.id}
    assert dump(fleet.federation) == before
    fleet.federation.stop(run.id, "enough", fleet.now)
    assert fleet.start(seed=1).id != run.id


def test_a_conflict_is_told_before_what_is_wrong_with_the_configuration() -> None:
    """While a run is active a configuration is not judged: 409 goes before 422."""
    fleet = Fleet("a")
    fleet.start()
    with pytest.raises(RunActive):
        fleet.federation.start({"nonsense": 1}, fleet.now)


def test_an_idempotency_key_makes_the_call_repeatable() -> None:
    """The same key and configuration are the same run, also after its end; another configuration is refused."""
    fleet = Fleet("a")
    run = fleet.federation.start(THREE_ROUNDS, fleet.now, key="k1")
    assert fleet.federation.start(dict(reversed(THREE_ROUNDS.items())), fleet.now, key="k1") is run
    with pytest.raises(DifferentBody, match="Idempotency-Key"):
        fleet.federation.start({**THREE_ROUNDS, "seed": 5}, fleet.now, key="k1")
    fleet.federation.stop(run.id, "enough", fleet.now)
    assert fleet.federation.start(THREE_ROUNDS, fleet.now, key="k1") is run
    assert run.state == "stopped"
    assert fleet.federation.start(THREE_ROUNDS, fleet.now, key="k2") is not run


@pytest.mark.parametrize(
    "config",
    [
        {"termination": None},
        {"aggregation_rule": "Nope"},
        {"seed": -1},
        {"train": {"x": float("nan")}},
        {"transforms": ["clip"]},
    ],
)
def test_a_refused_configuration_leaves_nothing(config: dict[str, Any]) -> None:
    """No run, no event, no key: the same key serves for the mended configuration."""
    fleet = Fleet("a")
    before = dump(fleet.federation)
    wrong = {**THREE_ROUNDS, **config}
    with pytest.raises(InvalidConfig):
        fleet.federation.start(wrong, fleet.now, key="k")
    assert dump(fleet.federation) == before
    assert fleet.federation.start(THREE_ROUNDS, fleet.now, key="k").state == "initializing"


def test_runs_are_found_by_id_current_and_latest() -> None:
    """`current` is the active run, `latest` the one that was started last; without one it is unknown."""
    fleet = Fleet("a")
    for name in ("current", "latest", "id-77"):
        with pytest.raises(UnknownRun):
            fleet.federation.find_run(name)
    run = fleet.start()
    assert {fleet.federation.find_run(name).id for name in ("current", "latest", run.id)} == {run.id}
    fleet.federation.stop(run.id, "enough", fleet.now)
    assert fleet.federation.find_run("latest") is run
    with pytest.raises(UnknownRun, match="no run is active"):
        fleet.federation.find_run("current")


def test_after_a_shutdown_nobody_joins_polls_or_starts() -> None:
    """The run stops with a reason, and every such call is told that the federation is over."""
    fleet = Fleet("a", "b")
    run = fleet.train()
    fleet.federation.offers.woken.clear()
    fleet.federation.shut_down(fleet.now)
    assert (run.state, run.reason) == ("stopped", "the controller is shutting down")
    assert fleet.federation.offers.woken == {fleet.ids["a"], fleet.ids["b"]}
    before = dump(fleet.federation)
    for call in (lambda: fleet.join("c"), lambda: fleet.poll("a"), fleet.start):
        with pytest.raises(FederationOver):
            call()
    assert dump(fleet.federation) == before


def test_old_runs_are_forgotten_with_their_tasks() -> None:
    """Of very many runs the newest hundred are remembered; a task of an older one is unknown."""
    fleet = Fleet("a")
    run = fleet.start()
    task = fleet.task("a", "init")
    for _ in range(100):
        fleet.federation.stop("current", "enough", fleet.now)
        fleet.start()
    assert len(fleet.federation.runs) == 100
    for call in (lambda: fleet.federation.find_run(run.id), lambda: fleet.give(task)):
        with pytest.raises(FederationError, match="there is no"):
            call()
