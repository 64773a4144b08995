"""What an operator does beside the driver that started the run: watch, go on, stop, fetch the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..processes import LocalFederation, driver, metis

QUICK = ("--set", "train.epochs=1")


@pytest.mark.slow
def test_watching_ends_with_ctrl_c_and_leaves_the_run_alone(federation: LocalFederation, tmp_path: Path) -> None:
    """A watcher is no owner."""
    with driver(["run", "--controller", federation.url, "--rounds", "100000", *QUICK], tmp_path) as first:
        first.until("round 1/")
        with driver(["watch", "--controller", federation.url], tmp_path) as second:
            second.until("round 1/")
            second.interrupt()
            assert second.rest()[0] == 130
        first.until("round ")
        assert metis("stop", "--controller", federation.url, cwd=tmp_path).returncode == 0
        assert first.rest()[0] == 0


@pytest.mark.slow
def test_manual_rounds_are_started_from_the_command_line(federation: LocalFederation, tmp_path: Path) -> None:
    """`metis next-round` starts a round and shows it; the driver that posted the run sees it through."""
    arguments = ["run", "--controller", federation.url, "--rounds", "2", *QUICK, "--set", "advance=manual"]
    with driver(arguments, tmp_path) as first:
        first.until("operator")
        shown = metis("next-round", "--controller", federation.url, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert [line for line in shown.stdout.splitlines() if line.startswith("round 1/2")]
        as_json = metis("next-round", "--controller", federation.url, "--json", cwd=tmp_path)
        assert json.loads(as_json.stdout)["round"] == 2
        assert first.rest()[0] == 0
    assert metis("next-round", "--controller", federation.url, cwd=tmp_path).returncode == 1


def test_model_is_downloaded_with_its_digest(ran: LocalFederation, tmp_path: Path) -> None:
    """The newest model of the latest run, as its results name it; what does not exist is an error without a file."""
    done = metis("model", "get", "--controller", ran.url, "--out", "m.msgpack", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    status = json.loads(metis("status", "--controller", ran.url, "--json", cwd=tmp_path).stdout)
    assert answer["digest"] == status["run"]["model"]
    assert (tmp_path / "m.msgpack").stat().st_size == answer["bytes"]
    missing = metis("model", "get", "--controller", ran.url, "--run", "nope", "--out", "x", cwd=tmp_path)
    assert missing.returncode == 1
    assert not (tmp_path / "x").exists()


def test_stop_without_a_run_says_so(ran: LocalFederation, tmp_path: Path) -> None:
    """There is nothing to stop: 1, and a sentence."""
    done = metis("stop", "--controller", ran.url, cwd=tmp_path)
    assert done.returncode == 1
    assert "no run is active" in done.stderr


def test_learners_are_let_back_by_their_name(ran: LocalFederation, tmp_path: Path) -> None:
    """Or by their id; who is not there is an error that says where to look."""
    (one, *_) = json.loads(metis("learners", "--controller", ran.url, "--json", cwd=tmp_path).stdout)
    assert (one["health"], one["health_reason"]) == ("ok", None)
    for named in (one["name"], one["id"]):
        done = metis("readmit", named, "--controller", ran.url, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"{one['name']} gets tasks again, from the next round on\n")
    done = metis("readmit", "nobody", "--controller", ran.url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no learner 'nobody'; `metis learners` lists them" in done.stderr
