"""`scripts/benchmarks pair`: what it concludes from numbers, and that it leaves nothing behind however it ends.

Most of it drives a small repository of its own, whose `metis bench` says numbers that are written in its code.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.pair import __main__ as pair
from scripts.pair.cases import PARTS, ROUND, Measure
from scripts.pair.comparison import Comparison, Turn, interval, verdict
from scripts.pair.turns import ORDERS

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
BENCH = """
import json, os, pathlib, sys, time
import services
if services.DOES == "fail":
    sys.exit("no memory is left")
if services.DOES == "wait":
    pathlib.Path(os.environ["BENCH_PID"]).write_text(str(os.getpid()))
    time.sleep(600)
case = {"timings_ms": {"federation_round": {"median": 1000 * services.COST}}}
if services.DOES != "say nothing of the CPU":
    case["cpu_s"] = {"server": services.COST}
pathlib.Path(sys.argv[sys.argv.index("--out") + 1]).write_text(json.dumps({"cases": [case]}))
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's CPU time")


# ---- what is concluded
def turns(*values: tuple[float, float, float]) -> list[Turn]:
    """Each: this, other, other again."""
    return [Turn(*one) for one in values]


def test_the_interval_of_a_median_is_that_of_the_binomial_distribution() -> None:
    """Seven: 2 · 1/128 = 1.6 % are outside all, 2 · 8/128 outside the second; nine: 2 · 10/512 = 3.9 %, 2 · 46/512."""
    assert interval([4, 1, 7, 2, 6, 3, 5]) == (1, 7)
    assert interval([9, 1, 8, 2, 7, 3, 6, 4, 5]) == (2, 8)
    assert interval(range(1, 13)) == (3, 10)  # 2 · (1 + 12 + 66) / 4096 = 3.9 %; with 220 more 14.6 %
    assert interval([3, 1, 2]) == (1, 3)


def test_worse_is_beyond_the_limit_and_beyond_the_same_code_beside_itself() -> None:
    """1.05 whatever the machine does; more where the same code shows more."""
    assert verdict(1.05, (1.0, 1.0)) == "not worse"
    assert verdict(1.06, (0.98, 1.02)) == "worse"
    assert verdict(1.06, (0.9, 1.07)) == "not worse"
    assert verdict(0.95, (1.0, 1.0)) == "better"  # 1 / 1.05 = 0.952
    assert verdict(0.96, (1.0, 1.0)) == "not worse"
    assert verdict(0.95, (0.94, 1.0)) == "not worse"


def test_a_comparison_worked_out_by_hand() -> None:
    """This to the mean of the other's two, turn by turn: a machine that slows down does not count."""
    found = Comparison.of(
        "100k x 3",
        "wall",
        turns((12, 10, 10), (23, 20, 20), (44, 40, 40), (13, 9, 11), (12, 11, 9), (60, 50, 50), (12, 10, 10)),
    )
    # ratios 1.2, 1.15, 1.1, 1.3, 1.2, 1.2, 1.2; the other to itself 1, 1, 1, 11/9, 9/11, 1, 1
    assert found.ratio == pytest.approx(1.2)
    assert found.interval == pytest.approx((1.1, 1.3))
    assert found.same == pytest.approx((9 / 11, 11 / 9))
    assert (found.this, found.other) == (13, 11)  # medians of 12 12 12 13 23 44 60 and of 9 9 10 10 10 10 11 11 20 ...
    assert found.verdict == "not worse"  # 1.2 is less than 11/9
    steady = turns(*[(12, 10, 10)] * 7)
    assert Comparison.of("", "", steady).verdict == "worse"
    assert Comparison.of("", "", [Turn(8, 10, 10)] * 7).verdict == "better"


def test_what_is_seen_with_noise() -> None:
    """docs/benchmarks.md: with 5 % noise seven turns call the same code worse in 0.8 %, a loss of 20 % in 94 %."""
    draw = random.Random(1990)

    def called_worse(cost: float) -> int:
        def cost_of(mean: float) -> float:
            return mean * math.exp(draw.gauss(0, 0.05))

        comparisons = [[Turn(cost_of(cost), cost_of(1), cost_of(1)) for _ in range(7)] for _ in range(500)]
        return sum(Comparison.of("", "", one).verdict == "worse" for one in comparisons)

    assert called_worse(1.0) < 15
    assert called_worse(1.2) > 450


def test_each_stands_equally_often_in_each_place() -> None:
    """Six orders: what the first or the last of a turn has easier, all have equally often."""
    places = Counter((place, name) for order in ORDERS for place, name in enumerate(order))
    assert set(places.values()) == {2}
    assert len(places) == 9


def test_a_number_that_a_version_does_not_tell_is_none() -> None:
    """Versions write other fields; 0 makes no ratio."""
    one = Measure("", ("cases", 0, "cpu_s", "server"))
    assert one.read({"cases": [{"cpu_s": {"server": 2}}]}) == 2.0
    reports: list[dict[str, Any]] = [{}, {"cases": []}]
    reports += [{"cases": [{"cpu_s": None}]}, {"cases": [{"cpu_s": {"server": 0}}]}]
    for report in reports:
        assert one.read(report) is None


def test_what_is_read_is_what_the_bench_writes() -> None:
    """Every number has its place in what `metis bench --out` saved for docs/benchmarks.md."""
    for name, part in PARTS.items():
        report = json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text())
        for one in (one for case in part for one in case.measures):
            assert one.read(report) is not None, f"{name}: {one.name}"


# ---- a repository of its own
@dataclass
class Repository:
    """A checkout with this program, and a `metis bench` that costs what its commit says."""

    folder: Path
    temporary: Path

    def git(self, *arguments: str) -> str:
        """What git answers."""
        named = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *named, *arguments], cwd=self.folder, capture_output=True, text=True, check=True, timeout=WAIT_S
        )
        return done.stdout.strip()

    def commit(self, cost: float, does: str = "measure") -> str:
        """A new commit; its id."""
        (self.folder / "services" / "__init__.py").write_text(f"COST, DOES = {cost}, {does!r}\n")
        self.git("add", "-A")
        self.git("commit", "-qm", f"{cost}, {does}", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """The program."""
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.pair", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "TMPDIR": str(self.temporary),
                "BENCH_PID": str(self.folder.parent / "pid"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pair(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run it to its end; its status, what it printed and its complaints. Nothing is left of it."""
        process = self.start(*arguments, **environment)
        out, said = process.communicate(timeout=WAIT_S)
        self.check_clean()
        return process.returncode, out, said

    def check_clean(self) -> None:
        """No worktree and no file is left."""
        assert len(self.git("worktree", "list").splitlines()) == 1
        assert list(self.temporary.iterdir()) == []


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One without commits."""
    made = Repository(tmp_path / "checkout", tmp_path / "temporary")
    made.temporary.mkdir()
    for name in ("services", "controller_api", "learner_agent", "driver_cli"):
        (made.folder / name).mkdir(parents=True)
        (made.folder / name / "__init__.py").touch()
    (made.folder / "driver_cli" / "__main__.py").write_text(BENCH)
    (made.folder / "pyproject.toml").write_text('[project]\ndependencies = ["numpy"]\n')
    shutil.copytree(ROOT / "scripts" / "pair", made.folder / "scripts" / "pair")
    (made.folder / ".gitignore").write_text("__pycache__/\n/pair.json\n")
    made.git("init", "-q")
    return made


def test_what_costs_twice_as_much_is_worse(repository: Repository) -> None:
    """Exit status 1; each commit ran its own code, or the ratio would be 1; every number is saved."""
    other = repository.commit(1.0)
    this = repository.commit(2.0)
    status, out, said = repository.pair(other, "small", "--pairs", "8", "--out", "pair.json")
    assert status == 1, said
    saved = json.loads((repository.folder / "pair.json").read_text())
    assert (saved["this"]["commit"], saved["other"]["commit"], saved["pairs"]) == (this, other, 8)
    assert len(saved["compared"]) == len(PARTS["small"]) * len(ROUND)
    for one in saved["compared"]:
        assert one["ratio"] == 2.0
        assert one["interval"] == [2.0, 2.0]
        assert one["same"] == [1.0, 1.0]
        assert one["verdict"] == "worse"
        assert len(one["turns"]) == 8
    assert saved["compared"][0]["turns"][0] == {"this": 2.0, "other": [1.0, 1.0]}
    assert out.count("| worse") == len(saved["compared"])
    assert "pair 8 of 8: 100k x 10, about" in said
    assert saved["dependencies_differ"] == []


def test_what_costs_half_is_better_and_other_packages_are_told(repository: Repository) -> None:
    """Exit status 0; a lock that one commit has not, and changes that are not committed, are told."""
    repository.commit(2.0)
    (repository.folder / "requirements").mkdir()
    (repository.folder / "requirements" / "base.txt").write_text("numpy==2.4.6\n")
    repository.commit(1.0)
    (repository.folder / "services" / "__init__.py").write_text("COST, DOES = 9.0, 'measure'\n")
    status, out, said = repository.pair("HEAD~1", "--", "--params", "1000")
    assert status == 0, said
    assert out.count("| better") == len(ROUND)
    assert "--params 1000" in out
    assert "They want other packages (requirements/base.txt)" in out
    assert "Changes that are not committed are not measured." in out


def test_what_one_commit_does_not_tell_is_not_compared(repository: Repository) -> None:
    """The rest is."""
    repository.commit(1.0, "say nothing of the CPU")
    repository.commit(1.0)
    status, out, said = repository.pair("HEAD~1", "medium")
    assert status == 0, said
    assert "1M x 10, controller, CPU s a round: not compared" in out
    assert out.count("| not worse") == 1


def test_wrong_usage_is_status_2(repository: Repository) -> None:
    """An unknown commit or part, too few pairs: before anything is measured."""
    repository.commit(1.0)
    for arguments, told in (
        (("HEAD~7",), "there is no commit HEAD~7"),
        (("HEAD", "smal"), "smal: there are the parts small, medium"),
        (("HEAD", "--pairs", "6"), "at least 7"),
        (("HEAD", "small", "--", "--params", "1000"), "not both"),
        (("HEAD", "--out", "nowhere/pair.json"), "there is no folder nowhere"),
    ):
        status, _, said = repository.pair(*arguments)
        assert status == 2
        assert told in said


def test_a_bench_that_fails_is_status_3(repository: Repository) -> None:
    """With the end of what it said, and without anything left behind."""
    repository.commit(1.0, "fail")
    repository.commit(1.0)
    status, _, said = repository.pair("HEAD~1", "small")
    assert status == 3
    assert "no memory is left" in said


def test_code_from_elsewhere_is_refused(repository: Repository, tmp_path: Path) -> None:
    """A commit that lacks a package would be measured with another one that Python finds: it is not."""
    (tmp_path / "elsewhere" / "learner_agent").mkdir(parents=True)
    found = tmp_path / "elsewhere" / "learner_agent" / "__init__.py"
    found.touch()
    repository.commit(1.0)
    repository.git("rm", "-rq", "learner_agent")
    repository.commit(1.0)
    status, _, said = repository.pair("HEAD~1", "small", PYTHONPATH=str(found.parent.parent))
    assert status == 3
    assert f"Python takes {found} instead of" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(repository: Repository, number: signal.Signals) -> None:
    """Exit status 130; the bench that was at work is ended, too."""
    repository.commit(1.0, "wait")
    process = repository.start("HEAD")
    pid = until(lambda: int((repository.folder.parent / "pid").read_text() or 0))
    process.send_signal(number)
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, said
    repository.check_clean()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def until(look: Callable[[], int]) -> int:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except FileNotFoundError:
            pass
        time.sleep(0.02)
    raise TimeoutError("it never came")


# ---- the real one
@linux
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_a_commit_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real federations of the commit that is checked out, in one turn: every number of a round is there."""
    monkeypatch.setattr(pair, "LEAST_PAIRS", 1)
    out = tmp_path / "pair.json"
    own: Sequence[str] = ("--params", "1000", "--learners", "2", "--rounds", "2", "--no-floor")
    status = pair.main(["HEAD", "--out", str(out), "--", *own])
    saved = json.loads(out.read_text())
    assert [one["measure"] for one in saved["compared"]] == [measure.name for measure in ROUND]
    assert saved["not_compared"] == []
    for one in saved["compared"]:
        values = [value for turn in one["turns"] for value in (turn["this"], *turn["other"])]
        assert len(set(values)) > 1
        assert 0 < min(values) <= max(values) < 60_000
    assert status == any(one["verdict"] == "worse" for one in saved["compared"])
    assert "controller, CPU s a round" in capsys.readouterr().out
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "metis-pair-" not in listed.stdout


@pytest.fixture(autouse=True)
def no_git_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that git itself started, as a hook, must not work in the repository of that."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
