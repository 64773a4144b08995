"""`metis run` against a real federation: what it prints, what it leaves behind, how it exits."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.weights import wire

from ..processes import LocalFederation, driver, metis

QUICK = ("--set", "train.epochs=1")
ROUNDS = 60  # more than are done while a driver starts


def test_run_in_a_pipe_prints_a_line_a_round_and_leaves_its_files(federation: LocalFederation, tmp_path: Path) -> None:
    """Results, final model and best model are written; the lines tell each round and why the run ended."""
    done = metis(
        *("run", "--controller", federation.url, "--learners", "2", "--rounds", "3", *QUICK),
        *("--out", "deep/r.json", "--model-out", "model.msgpack", "--best-out", "best.msgpack"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rounds = [line for line in done.stdout.splitlines() if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/3", "2/3", "3/3"]
    assert all("2/2 learners" in line and "eval" in line and "accuracy=" in line for line in rounds)
    assert "completed: 3 rounds are done" in done.stdout
    results = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert [r["round"] for r in results["rounds"]] == [1, 2, 3]
    assert results["run"]["config"]["train"] == {"epochs": 1}
    for name in ("model.msgpack", "best.msgpack"):
        document = wire.decode(bytearray((tmp_path / name).read_bytes()))
        assert [tensor.array.shape for tensor in document.tensors] == [(64, 64), (64,), (64, 10), (10,)]


def test_json_is_all_that_is_printed_on_standard_output(federation: LocalFederation, tmp_path: Path) -> None:
    """The document is what was written to `--out`; the lines for people go to standard error."""
    done = metis("run", "--controller", federation.url, "--rounds", "2", *QUICK, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "results.json").read_text())
    assert "round 2/2" in done.stderr


@pytest.mark.slow
def test_a_run_goes_on_from_another_or_from_a_file(federation: LocalFederation, tmp_path: Path) -> None:
    """--from-run latest begins where the last run ended, --initial-model with the file; never both at once."""
    arguments = ("run", "--controller", federation.url, "--learners", "2", "--rounds", "1", *QUICK, "--json")
    first = metis(*arguments, "--model-out", "model.msgpack", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    resumed = metis(*arguments, "--from-run", "latest", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"][0]["parent"] == json.loads(first.stdout)["model"]
    document = wire.decode((tmp_path / "model.msgpack").read_bytes())
    arrays: dict[str, Any] = {tensor.name: tensor.array for tensor in document.tensors}
    np.savez(tmp_path / "model.npz", **arrays)
    copied = metis(*arguments, "--initial-model", "model.npz", cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    assert json.loads(copied.stdout)["rounds"][0]["parent"] == json.loads(first.stdout)["model"]
    both = metis(*arguments, "--initial-model", "model.npz", "--from-run", "latest", cwd=tmp_path)
    assert (both.returncode, "not both" in both.stderr) == (2, True)
    wrong = metis(*arguments, "--initial-model", "results.json", cwd=tmp_path)
    assert (wrong.returncode, "results.json: the body is not a weights document" in wrong.stderr) == (2, True)
    unknown = metis(*arguments, "--from-run", "nobody", cwd=tmp_path)
    assert (unknown.returncode, "there is no run 'nobody'" in unknown.stderr) == (1, True)


def test_until_ends_the_run_at_the_score(federation: LocalFederation, tmp_path: Path) -> None:
    """A run ends with the round that reaches the score, and says so."""
    done = metis("run", "--controller", federation.url, "--until", "accuracy>=0.3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["ended_by"] == "evaluation_metric"
    assert results["rounds"][-1]["evaluation_metrics"]["combined"]["accuracy"] >= 0.3


def test_refused_configuration_is_2_and_leaves_no_file(federation: LocalFederation, tmp_path: Path) -> None:
    """What the controller refuses is a mistake of the user, told in a sentence."""
    done = metis("run", "--controller", federation.url, "--rounds", "1", "--rule", "FedAvgg", cwd=tmp_path)
    assert done.returncode == 2
    assert "FedAvg" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results.json").exists()


def test_run_without_any_end_is_refused(federation: LocalFederation, tmp_path: Path) -> None:
    """No termination signal: the run would never end."""
    done = metis("run", "--controller", federation.url, cwd=tmp_path)
    assert done.returncode == 2
    assert "federation_rounds" in done.stderr


def test_failed_run_is_1_and_its_results_are_kept(federation: LocalFederation, tmp_path: Path) -> None:
    """When every learner fails, the run fails; the results name the reason of each."""
    done = metis("run", "--controller", federation.url, "--rounds", "1", "--set", "train.batch_size=0", cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "failed" in done.stdout
    assert "batch_size" in (tmp_path / "results.json").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_stops_the_run_and_tells_what_is_left(
    federation: LocalFederation, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C: the run is stopped, the results so far are written, the federation stays, the status is 130."""
    with driver(["run", "--controller", federation.url, "--rounds", "100000", *QUICK], tmp_path) as running:
        running.until("round 2/")
        running.interrupt(number)
        status, said = running.rest()
    assert status == 130
    assert "2 learners (learner-0, learner-1)" in said
    assert "Traceback" not in said
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["run"]["state"] == "stopped"
    assert len(results["rounds"]) >= 2
    state = json.loads(metis("status", "--controller", federation.url, "--json", cwd=tmp_path).stdout)["state"]
    assert state == "idle"


def test_a_killed_driver_leaves_the_run_to_go_on(federation: LocalFederation, tmp_path: Path) -> None:
    """SIGKILL: it could tell nobody. The run goes on to its own end, and `metis watch` follows it there."""
    with driver(["run", "--controller", federation.url, "--rounds", str(ROUNDS), *QUICK], tmp_path) as running:
        running.until("round 2/")
        running.interrupt(signal.SIGKILL)
        status, said = running.rest()
    assert status == -signal.SIGKILL
    assert f"round {ROUNDS}/" not in said
    assert not (tmp_path / "results.json").exists()
    with driver(["watch", "--controller", federation.url], tmp_path) as watching:
        status, said = watching.rest()
    assert (status, "Traceback" in said) == (0, False), said
    followed = [int(line.split()[1].split("/")[0]) for line in said.splitlines() if line.startswith("round ")]
    assert len(followed) > ROUNDS / 2  # it was under way
    assert followed == list(range(followed[0], ROUNDS + 1))
    assert f"completed: {ROUNDS} rounds are done" in said
    shown = json.loads(metis("status", "--controller", federation.url, "--json", cwd=tmp_path).stdout)
    assert (shown["state"], shown["run"]["state"], shown["run"]["round"]) == ("idle", "completed", ROUNDS)


@pytest.mark.slow
def test_second_driver_is_told_of_the_first_watches_and_takes_over(federation: LocalFederation, tmp_path: Path) -> None:
    """One run at a time; others may watch it or attach to it. Stopped by an operator it is done, not failed."""
    arguments = ["run", "--controller", federation.url, "--rounds", "100000", *QUICK]
    with driver(arguments, tmp_path) as first:
        first.until("round 1/")
        second = metis(*arguments, cwd=tmp_path)
        assert second.returncode == 1
        assert "--attach" in second.stderr
        attached = ["run", "--attach", "--controller", federation.url, "--out", "attached.json"]
        with driver(attached, tmp_path) as third, driver(["watch", "--controller", federation.url], tmp_path) as fourth:
            third.until("round 2/")
            fourth.until("round 2/")
            stopped = metis("stop", "--controller", federation.url, "--reason", "seen enough", cwd=tmp_path)
            assert stopped.returncode == 0, stopped.stderr
            for one in (first, third, fourth):
                status, said = one.rest()
                assert status == 0
                assert "stopped: seen enough" in said
    assert (tmp_path / "attached.json").read_text() == (tmp_path / "results.json").read_text()
