"""`metis bench`, `simulate`, `rules` and `verify`: wrong options, and what the last two say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..local.played_runs import change_a_byte, played, rounds
from ..processes import metis


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


@pytest.mark.parametrize("spec", ["nonsense", "no_such_module:x", "learner_agent.digits:nothing", "json:dumps"])
def test_factory_that_makes_no_learner_is_2(tmp_path: Path, spec: str) -> None:
    """The message names it and shows an example or the reason."""
    done = metis("simulate", "--learners", "2", "--learner", spec, cwd=tmp_path)
    assert done.returncode == 2
    assert spec in done.stderr
    assert "Traceback" not in done.stderr


SAME = "recomputed: same"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four rounds of FedAvg, with all updates."""
    return played(tmp_path_factory.mktemp("run"), lineage=0)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "data"))


def test_the_command_tells_it_to_people_and_programs(folder: Path, tmp_path: Path) -> None:
    """A table and a sentence, or JSON; 1 when something differs."""
    good = metis("verify", "--data-dir", str(folder), cwd=tmp_path)
    assert (good.returncode, good.stderr, good.stdout.count(SAME)) == (0, "", 4)
    assert "4 rounds: 4 recomputed and the same, 0 differ" in good.stdout
    update = rounds(folder, 2)[0].manifest.updates[0]
    change_a_byte(folder / "models" / update.key)
    bad = metis("verify", cwd=tmp_path, METIS_DATA_DIR=str(folder))
    assert (bad.returncode, "differs: update of learner-0 was changed" in bad.stdout) == (1, True)
    told = metis("verify", "--data-dir", str(folder), "--round", "2", "--json", cwd=tmp_path)
    (one,) = json.loads(told.stdout)["rounds"]
    assert (told.returncode, one["round"], one["verdict"], one["updates"]) == (1, 2, "differs", 4)


def test_rounds_of_which_equally_much_is_gone_share_a_line(folder: Path, tmp_path: Path) -> None:
    """A long run whose old rounds are gone is told in few lines."""
    for one in rounds(folder)[:3]:
        for update in one.manifest.updates:
            (folder / "models" / update.key).unlink()
    said = metis("verify", "--data-dir", str(folder), cwd=tmp_path)
    assert said.returncode == 0
    assert [line.split()[0] for line in said.stdout.splitlines()[1:3]] == ["1-3", "4"]
    assert "4 rounds: 1 recomputed and the same, 0 differ, 3 not kept" in said.stdout


# ---- rules
def test_rules_lists_every_part_and_tells_one_with_its_parameters(tmp_path: Path) -> None:
    """Whatever the letters' case; a name that nobody knows is answered with the nearest."""
    every, one = metis("rules", cwd=tmp_path), metis("rules", "trimmedmean", cwd=tmp_path)
    assert [line.split()[0] for line in every.stdout.splitlines() if line.startswith("  ")].count("FedAvg") == 1
    assert "aggregation.trim_ratio  0.1      a finite number of at least 0 and below 0.5" in one.stdout
    assert "Yin et al. 2018, arXiv:1803.01498" in one.stdout
    told = json.loads(metis("rules", "none", "--json", cwd=tmp_path).stdout)
    assert [entry["key"] for entry in told] == ["server_optimizer", "algorithm", "encoding.up, down"]
    unknown = metis("rules", "krumm", cwd=tmp_path)
    assert (unknown.returncode, unknown.stderr.strip()) == (2, "metis: there is no 'krumm'; did you mean Krum?")
