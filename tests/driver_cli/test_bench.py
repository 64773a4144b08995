"""`metis bench`: what it measures, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from driver_cli.bench import counters, floor
from driver_cli.bench.channel import start_helper
from driver_cli.bench.crowd import Crowd
from driver_cli.bench.federation import spread
from driver_cli.bench.idle import raise_file_limit
from driver_cli.bench.sizes import counts, sizes
from driver_cli.bench.stress import Stress, turns
from driver_cli.exits import ChildDied
from driver_cli.process import children
from learner_agent.synthetic import layer_shapes
from services.errors import InvalidConfig
from tests.conftest import Served

from .conftest import metis

TIMINGS = {
    "train_dispatch",
    "train_round",
    "aggregation",
    "evaluation_dispatch",
    "evaluation_round",
    "federation_round",
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


# ---- what it measures
def test_measures_rounds_beside_bare_sockets(tmp_path: Path) -> None:
    """The six timings, memory, CPU time, bytes, the floor and the ratio to it; only what was asked for is left."""
    arguments = (
        "--params",
        "1000",
        "--learners",
        "2,3",
        "--rounds",
        "4",
        "--out",
        "b.json",
        "--plot",
        "b.svg",
        "--json",
    )
    done = metis("bench", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"b.json", "b.svg"}
    assert measured == json.loads((tmp_path / "b.json").read_text())
    assert measured["machine"]["cpus"] >= 1
    assert [case["learners"] for case in measured["cases"]] == [2, 3]
    for case in measured["cases"]:
        document = (
            case["bytes_down"] / case["learners"]
        )  # each learner gets the model once: what it evaluated it trains
        assert 4 * case["params"] < document < 3 * 4 * case["params"] + 30_000
        assert case["bytes_up"] > 4 * case["params"] * case["learners"]
        assert set(case["timings_ms"]) >= TIMINGS
        assert all(0 <= spread["min"] <= spread["median"] <= spread["max"] for spread in case["timings_ms"].values())
        assert len(case["rounds_ms"]["federation_round"]) == len(case["floor"]["rounds_s"]) == 4
        whole_s = case["timings_ms"]["federation_round"]["median"] / 1000
        assert case["ratio"] == pytest.approx(whole_s / case["floor"]["round_s"]["median"], abs=0.001)
        assert case["floor"]["bytes"] == 3 * 4 * case["params"] * case["learners"]


@linux
def test_cost_of_the_controller_is_told(tmp_path: Path) -> None:
    """Without the floor there is no ratio; CPU time and memory are there, and the text names them."""
    done = metis("bench", "--params", "1000", "--learners", "2", "--rounds", "1", "--no-floor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    assert case["floor"] is None
    assert case["ratio"] is None
    assert 0 < case["cpu_s"]["server"] < 10
    assert 20 < case["memory"]["anonymous_mb"] < case["memory"]["resident_mb"] < 500


@linux
def test_measures_learners_that_wait(tmp_path: Path) -> None:
    """They are all enrolled and get their task within a bound; memory, CPU time and ends of polls are told."""
    done = metis("bench", "--idle", "40", "--idle-seconds", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    idle = json.loads(done.stdout)["idle"]
    assert (idle["polls"], idle["woken"], idle["ended_polls"]) == (40, 40, 0)
    assert 0 < idle["last_task_after_post_ms"]["min"] < 5000
    assert idle["last_task_ms"]["median"] < idle["last_task_after_post_ms"]["median"]
    assert idle["cpu_percent"] >= 0


def test_floor_makes_the_mean() -> None:
    """Two learners add 0.001 and 0.002 to the first value: the mean moves by 0.0015; the rest stays."""
    server = floor.Server(params=100_000, learners=2)
    learners = [threading.Thread(target=floor.learn, args=(server.port, index, 100_000)) for index in (0, 1)]
    for learner in learners:
        learner.start()
    server.accept()
    before = server.model.copy()
    assert server.round() > 0
    moved = server.model - before
    server.close()
    for learner in learners:
        learner.join(10)
    assert float(moved[0]) == pytest.approx(0.0015, abs=1e-6)
    assert float(np.abs(moved[1:]).max()) < 1e-6


def test_floor_and_federation_take_turns() -> None:
    """Three rounds each in turn, or one where a round is long; all rounds are done."""
    assert turns(7, 0.03) == [3, 3, 1]
    assert turns(3, 4.0) == [1, 1, 1]


@linux
def test_counters_of_a_process() -> None:
    """CPU time is that of the process's own clock; memory has the anonymous part; of no process nothing is known."""
    told, own = counters.cpu_s(os.getpid()), time.process_time()
    assert told == pytest.approx(own, abs=0.05)
    assert counters.memory_kib(os.getpid())["RssAnon"] > 1000
    nobody = 2**22 + 1  # above the highest process id
    assert counters.cpu_s(nobody) is None
    assert counters.memory_kib(nobody) == {}


async def test_waiting_learner_that_is_refused_is_told(served: Served) -> None:
    """What a learner of the crowd hears instead of a task is kept, so that nothing is measured of it."""
    crowd = Crowd(served.port, wait_s=1.0)
    await crowd.enrol(2)
    assert crowd.enrolled == 2
    again = Crowd(served.port, wait_s=1.0)
    with pytest.raises(ExceptionGroup):
        await again.enrol(1)  # the same names
    assert "409" in str(again.refused)
    crowd.close()
    again.close()


async def test_helper_that_dies_is_an_error(tmp_path: Path) -> None:
    """The bench does not wait for the answer of a process that is gone."""
    async with children(tmp_path) as started:
        helper = await start_helper(started, "floor", "driver_cli.bench.floor", "--params", "10", "--learners", "1")
        helper.process.process.kill()
        with pytest.raises(ChildDied):
            await asyncio.wait_for(helper.ask("accept"), 30)


# ---- sizes
@pytest.mark.parametrize(
    ("asked", "width", "params"),
    [
        ("100k", 32, 106_081),
        ("1M", 100, 1_011_501),
        ("10M", 320, 10_276_801),
        ("106081", 32, 106_081),
        ("10276801", 320, 10_276_801),
        ("1", 1, 216),
    ],
)
def test_sizes_are_those_of_the_paper(asked: str, width: int, params: int) -> None:
    """13w + w + 100(w² + w) + w + 1 parameters of width w; the learners make the same model."""
    (size,) = sizes(asked)
    assert (size.name, size.width, size.params, size.nbytes) == (asked, width, params, 4 * params)
    assert sum(math.prod(shape) for shape in layer_shapes(size.asked_of_learners)) == params


@pytest.mark.parametrize("text", ["", "0", "-1", "10G", "1e6", "k", "100k,", "2000M"])
def test_sizes_that_are_none(text: str) -> None:
    """The message shows how one is written."""
    with pytest.raises(InvalidConfig, match="write 106081, 100k or 10M"):
        sizes(text)


@pytest.mark.parametrize("text", ["", "0", "x", "5,,6", "1001"])
def test_counts_that_are_none(text: str) -> None:
    """From 1 to what is allowed."""
    assert counts("1, 1000", 1000) == [1, 1000]
    with pytest.raises(InvalidConfig, match="from 1 to 1000"):
        counts(text, 1000)


# ---- what it refuses
@linux
def test_more_memory_than_there_is_is_refused() -> None:
    """Before anything starts, with an estimate: the floor's learners, the federation's, the updates, the slots."""
    (size,) = sizes("1000M")
    with pytest.raises(InvalidConfig, match=r"the learners 4.*, the controller 4.*, the floor 4.*GB are free"):
        Stress(size, 1000).check_memory()
    Stress(sizes("100k")[0], 2).check_memory()


def test_too_few_open_files_are_an_error() -> None:
    """It says how many are needed and how many there may be, and leaves the limit as it was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] == resource.RLIM_INFINITY:
        pytest.skip("no limit is set")
    with pytest.raises(InvalidConfig, match=f"{before[1] + 1} open files are needed and the system allows {before[1]}"):
        raise_file_limit(before[1] + 1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    raise_file_limit(10)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model-store", "Redis"), "InMemory or OnDisk"),
        (("--plot", "p.png"), "p.svg"),
        (("--out", "nowhere/b.json"), "there is no folder nowhere"),
        (("--learners", "0"), "from 1 to 1000"),
        (("--from", "missing.json"), "missing.json: "),
        (("--from", "other.json"), "not what `metis bench --out` writes"),
    ],
)
def test_wrong_options_are_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """Before anything is measured, in a sentence."""
    (tmp_path / "other.json").write_text("{}")
    done = metis("bench", *arguments, cwd=tmp_path, timeout=20)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("learners", [1, 2, 3, 10, 101])
def test_learners_are_spread_over_the_cores(learners: int) -> None:
    """Every number once, in as many processes as there are cores, none of which is empty."""
    found = spread(learners)
    assert [number for places in found for number in places] == list(range(learners))
    assert len(found) == min(learners, os.cpu_count() or 1)
    assert all(found)
