"""DriverSession: a run from Python."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driver_cli import DriverSession
from driver_cli.show.display import Silent
from driver_cli.show.view import View
from services import ClientParams, TerminationSignals
from services import messages as m
from services.errors import FederationError, InvalidConfig, UnknownRun, Unreachable
from services.messages import Event
from services.weights import wire
from tests.conftest import free_port

from ..processes import LocalFederation
from .safetensors_files import saved

QUICK = {"train": {"epochs": 1}}
TWO_ROUNDS = TerminationSignals(federation_rounds=2)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def controller(federation: LocalFederation) -> ClientParams:
    """Where the federation's controller is."""
    return ClientParams("127.0.0.1", federation.port)


def test_run_returns_what_it_writes(federation: LocalFederation, tmp_path: Path) -> None:
    """The dict is the one in results.json; every event of the run was passed on, in order."""
    events: list[Event] = []
    results = DriverSession(controller(federation), 2, TWO_ROUNDS, config=QUICK, on_event=events.append).run()
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["run"]["state"] == "completed"
    assert set(results["rounds"][0]["evaluation_metrics"]["learners"]) == {"learner-0", "learner-1"}
    assert [e.round for e in events if e.kind == "round-closed"] == [1, 2]
    assert [e.id for e in events] == sorted({e.id for e in events})


def test_is_async_runs_asynchronously(federation: LocalFederation) -> None:
    """Rounds are community models, each made as soon as somebody reports; everybody scores the last one."""
    four = TerminationSignals(federation_rounds=4)
    results = DriverSession(controller(federation), 2, four, is_async=True, config=QUICK).run()
    assert (results["run"]["state"], results["run"]["config"]["scheduler"]) == ("completed", "Asynchronous")
    assert [len(one["completed"]) for one in results["rounds"]] == [1, 1, 1, 1]
    assert set(results["rounds"][-1]["evaluation_metrics"]["learners"]) == {"learner-0", "learner-1"}


class Torn(Silent):
    """A display that fails at the end, as a terminal that went away does."""

    def end(self, view: View, results: m.Results) -> None:
        """Fail."""
        raise OSError("the terminal is gone")


async def test_a_display_that_fails_does_not_lose_the_results(federation: LocalFederation, tmp_path: Path) -> None:
    """They are written before anything is drawn."""
    with pytest.raises(OSError, match="gone"):
        await DriverSession(controller(federation), 2, TWO_ROUNDS, config=QUICK).drive(Torn())
    assert json.loads((tmp_path / "results.json").read_text())["run"]["state"] == "completed"


def test_evaluate_scores_each_community_model(federation: LocalFederation) -> None:
    """The driver's own scores stand beside the learners', by round; numpy scalars are fine, NaN is null."""
    seen: dict[int, list[tuple[int, ...]]] = {}

    def evaluate(weights: list[NDArray[Any]], round_number: int) -> dict[str, Any]:
        seen[round_number] = [w.shape for w in weights]
        return {"norm": np.float32(np.linalg.norm(weights[0])), "nothing": float("nan")}

    results = DriverSession(controller(federation), 2, TWO_ROUNDS, evaluate=evaluate, config=QUICK).run()
    assert set(results["central_metrics"]) == {"1", "2"}
    assert results["central_metrics"]["2"]["norm"] > 0
    assert results["central_metrics"]["2"]["nothing"] is None
    shapes = [(64, 64), (64,), (64, 10), (10,)]
    assert seen == {1: shapes, 2: shapes}


def test_wrong_evaluate_does_not_lose_the_run(federation: LocalFederation) -> None:
    """Its error is in the results, which are complete."""

    def evaluate(weights: list[NDArray[Any]], round_number: int) -> Any:
        if round_number == 1:
            raise RuntimeError("no data here")
        return 0.5

    results = DriverSession(controller(federation), 2, TWO_ROUNDS, evaluate=evaluate, config=QUICK).run()
    assert results["run"]["state"] == "completed"
    assert results["central_metrics"] == {}
    assert results["central_errors"]["1"] == "RuntimeError: no data here"
    assert "mapping" in results["central_errors"]["2"]


def test_the_scores_of_a_driver_that_evaluates_end_the_run(federation: LocalFederation) -> None:
    """No learner is asked, and the target is that of the driver's own metric; without a function it is refused."""
    signals = TerminationSignals(evaluation_metric="mine", evaluation_metric_cutoff_score=2.0)
    config = {**QUICK, "evaluation": {"who": "driver"}}

    def evaluate(weights: list[Any], number: int) -> dict[str, float]:
        return {"mine": float(number)}

    results = DriverSession(controller(federation), 2, signals, evaluate=evaluate, config=config).run()
    assert (results["run"]["state"], results["ended_by"]) == ("completed", "evaluation_metric")
    told = [one["evaluation_metrics"]["combined"] for one in results["rounds"]]
    assert told == [{"mine": 1.0}, {"mine": 2.0}]
    assert not [task for task in results["tasks"] if task["kind"] == "evaluate"]
    with pytest.raises(InvalidConfig, match=r"give DriverSession\(evaluate=\.\.\.\)"):
        DriverSession(controller(federation), 2, signals, config=config)


def test_manual_rounds_from_python(federation: LocalFederation, tmp_path: Path) -> None:
    """start, next_round as often as wanted, finish: the run ends as finished by the driver."""
    signals = TerminationSignals(federation_rounds=10)
    session = DriverSession(controller(federation), 2, signals, evaluate=lambda w, n: {"round": n}, config=QUICK)
    assert session.start()["round"] == 0
    assert [session.next_round()["round"] for _ in range(4)] == [1, 2, 3, 4]
    results = session.finish()
    assert [r["round"] for r in results["rounds"]] == [1, 2, 3, 4]
    assert results["central_metrics"] == {str(n): {"round": float(n)} for n in range(1, 5)}
    assert results["run"]["reason"] == "finished by the driver"
    assert results == json.loads((tmp_path / "results.json").read_text())


def test_initial_weights_are_model_0(federation: LocalFederation, tmp_path: Path) -> None:
    """Arrays, or a weights document in a file: the first round's parent is what was brought."""
    zeros = [np.zeros(shape, np.float32) for shape in ((64, 64), (64,), (64, 10), (10,))]
    names = ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]
    file = tmp_path / "zeros.msgpack"
    file.write_bytes(b"".join(wire.encode(wire.name_tensors(zeros, names))))
    one_round = TerminationSignals(federation_rounds=1)
    for weights in (file, str(file)):
        session = DriverSession(controller(federation), 2, one_round, config=QUICK, initial_weights=weights)
        results = session.run()
        assert results["run"]["config"]["initial_model"] == results["rounds"][0]["parent"]
    with pytest.raises(FederationError, match="weights document"):
        DriverSession(controller(federation), 2, one_round, initial_weights=tmp_path / "results.json").run()


def test_a_model_file_of_another_tool_is_model_0(federation: LocalFederation, tmp_path: Path) -> None:
    """`.npz` and `.safetensors`, sorted by name as the latter's writer does: learners take their tensors by name.

    The network of zeros with one bias of 1 says "0" to every picture: a tenth is right, and the loss is known.
    """
    arrays = {
        "hidden.bias": np.zeros(64, np.float32),
        "hidden.weight": np.zeros((64, 64), np.float32),
        "output.bias": np.eye(10, dtype=np.float32)[0],
        "output.weight": np.zeros((64, 10), np.float32),
    }
    np.savez(tmp_path / "model.npz", **arrays)
    (tmp_path / "model.safetensors").write_bytes(saved(arrays))
    config = {**QUICK, "evaluation": {"initial": True}}
    one_round = TerminationSignals(federation_rounds=1)
    digests = set()
    for name in ("model.npz", "model.safetensors"):
        weights = tmp_path / name
        results = DriverSession(controller(federation), 2, one_round, config=config, initial_weights=weights).run()
        assert results["run"]["state"] == "completed"
        assert len(results["rounds"][0]["completed"]) == 2
        score = results["initial_evaluation"]["combined"]
        assert 0.05 < score["accuracy"] < 0.15
        assert score["loss"] == pytest.approx(np.log(np.e + 9) - score["accuracy"], abs=1e-4)
        digests.add(results["rounds"][0]["parent"])
    assert len(digests) == 1
    np.savez(tmp_path / "model.npz", **arrays | {"hidden.bias": np.full(64, np.nan, np.float32)})
    session = DriverSession(controller(federation), 2, one_round, initial_weights=tmp_path / "model.npz")
    with pytest.raises(InvalidConfig, match=r"model.npz: tensor 'hidden.bias' holds NaN"):
        session.run()


def test_a_run_goes_on_from_the_model_of_another(federation: LocalFederation, tmp_path: Path) -> None:
    """`from_run`: its final model is the first round's parent, as it would be with the model in a file."""
    first = DriverSession(controller(federation), 2, TWO_ROUNDS, config=QUICK, model_out="model.msgpack").run()
    resumed = DriverSession(controller(federation), 2, TWO_ROUNDS, config=QUICK, from_run=first["run"]["id"]).run()
    assert resumed["run"]["id"] != first["run"]["id"]
    assert resumed["rounds"][0]["parent"] == resumed["run"]["config"]["initial_model"] == first["model"]
    assert [one["round"] for one in resumed["rounds"]] == [1, 2]
    latest = DriverSession(controller(federation), 2, TWO_ROUNDS, config=QUICK, from_run="latest").run()
    assert latest["rounds"][0]["parent"] == resumed["model"]
    older = DriverSession(controller(federation), 2, TWO_ROUNDS, config=QUICK, from_run=first["run"]["id"]).run()
    assert older["rounds"][0]["parent"] == first["model"]  # models of ended runs are kept
    assert wire.digest([(tmp_path / "model.msgpack").read_bytes()]) == first["model"]


def test_a_run_that_made_no_model_or_goes_on_cannot_be_gone_on_from(federation: LocalFederation) -> None:
    """Each is refused in a sentence, and so is a run that would have two beginnings."""
    session = DriverSession(controller(federation), 2, TerminationSignals(federation_rounds=9), config=QUICK)
    run = session.start()
    again = DriverSession(controller(federation), 2, TWO_ROUNDS, from_run=run["id"])
    with pytest.raises(InvalidConfig, match=f"run {run['id']} is waiting: to go on from it, stop it"):
        again.run()
    session.finish()
    lonely = DriverSession(controller(federation), 99, TWO_ROUNDS, config={"schedule": {"join_deadline_s": 0.1}})
    failed = lonely.run()["run"]
    with pytest.raises(InvalidConfig, match=f"run {failed['id']} made no model to go on from: only 2 of 99 learners"):
        DriverSession(controller(federation), 2, TWO_ROUNDS, from_run=failed["id"]).run()
    with pytest.raises(UnknownRun, match="no-such-run"):
        DriverSession(controller(federation), 2, TWO_ROUNDS, from_run="no-such-run").run()
    with pytest.raises(InvalidConfig, match="not both"):
        DriverSession(controller(federation), 2, TWO_ROUNDS, from_run="latest", initial_weights="model.npz")


async def test_arun_serves_programs_that_have_a_loop(federation: LocalFederation) -> None:
    """Inside an event loop `run` says what to call instead; cancelling `arun` stops the run."""
    session = DriverSession(controller(federation), 2, TerminationSignals(federation_rounds=100_000), config=QUICK)
    with pytest.raises(FederationError, match="arun"):
        session.run()
    begun = asyncio.Event()
    session = DriverSession(
        controller(federation),
        2,
        TerminationSignals(federation_rounds=100_000),
        config=QUICK,
        on_event=lambda event: begun.set() if event.kind == "round-closed" else None,
    )
    running = asyncio.create_task(session.arun())
    await asyncio.wait_for(begun.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert json.loads(Path("results.json").read_text())["run"]["state"] == "stopped"  # noqa: ASYNC240 - a small file


def test_controller_that_never_comes_is_unreachable() -> None:
    """The wait is bounded, and the error names the address and the bound."""
    with pytest.raises(Unreachable, match="tried for 1 s"):
        DriverSession(f"127.0.0.1:{free_port()}", 1, TWO_ROUNDS, controller_timeout_s=1).run()


@pytest.mark.slow
def test_driver_may_start_before_everything_else(tmp_path: Path) -> None:
    """Driver, then learners, then controller: the run goes through all the same, and `shutdown` ends them all."""
    late = LocalFederation(tmp_path)
    session = DriverSession(late.url, 2, TWO_ROUNDS, config=QUICK, shutdown=True)

    async def both() -> dict[str, Any]:
        running = asyncio.create_task(session.arun())
        await asyncio.sleep(0)
        late.start_learners(2)
        late.start_controller()
        return await running

    try:
        results = asyncio.run(asyncio.wait_for(both(), 90))
        assert results["run"]["state"] == "completed"
        assert [process.wait(30) for process in late.processes] == [0, 0, 0]
    finally:
        late.end()
