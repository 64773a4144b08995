"""Rounds made again: what is kept makes its model again, what was changed is named, what is gone is told."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from driver_cli.local.verification import written
from services.config import canonical
from services.errors import InvalidConfig, InvalidRequest, UnknownRun
from services.federation import ARITHMETIC, config_digest

from ..processes import metis
from .played_runs import LEARNERS, change_a_byte, played, rounds, verdicts

SAME = "recomputed: same"
ASYNCHRONOUS: dict[str, Any] = {"scheduler": "Asynchronous", "evaluation": {"every": 0}}
RUNS: dict[str, dict[str, Any]] = {
    "FedAdam": {"server_optimizer": "FedAdam"},
    "FedAvgM": {"server_optimizer": "FedAvgM"},
    "Krum": {"aggregation_rule": "Krum", "aggregation": {"num_byzantine": 0}, "schedule": {"min_updates": 4}},
    "QFedAvg": {"aggregation_rule": "QFedAvg", "aggregation": {"q": 1.0, "learning_rate": 0.1}},
    "clipped": {"transforms": [{"name": "ClipNorm", "norm": 0.01}]},
    "clipped adaptively": {"transforms": [{"name": "AdaptiveClipNorm"}], "aggregation_rule": "Median"},
    "coded": {"encoding": {"up": "int8", "down": "bf16"}},
    "clipped and coded": {"transforms": [{"name": "ClipNorm", "norm": 0.01}], "encoding": {"up": "topk"}},
    "SCAFFOLD": {"algorithm": "SCAFFOLD"},
    "FedRec": {"aggregation_rule": "FedRec", **ASYNCHRONOUS},
    "FedAsync": {"aggregation_rule": "FedAsync", **ASYNCHRONOUS},
    "FedBuff": {"aggregation_rule": "FedBuff", "aggregation": {"buffer_size": 2}, **ASYNCHRONOUS},
    "FedAvg as they come": {"aggregation_rule": "FedAvg", **ASYNCHRONOUS},
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four rounds of FedAvg, with all updates."""
    return played(tmp_path_factory.mktemp("run"), lineage=0)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(original, tmp_path / "data"))


def rewrite(folder: Path, kind: str, key: str, **values: Any) -> None:
    """Change what is written down."""
    with sqlite3.connect(folder / "state.sqlite") as connection:
        (found,) = connection.execute("SELECT data FROM row WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        data = json.dumps({**json.loads(found), **values}).encode()
        connection.execute("UPDATE row SET data = ? WHERE kind = ? AND key = ?", (data, kind, key))
    connection.close()


def test_all_rounds_are_the_same(folder: Path) -> None:
    """With all updates kept every round is made again, and nothing in the folder is touched."""
    assert verdicts(folder) == [SAME] * 4
    assert verdicts(folder, 3) == [SAME]


@pytest.mark.parametrize("name", RUNS)
def test_rules_optimizers_transforms_and_encodings(tmp_path: Path, name: str) -> None:
    """What is stored is what was counted, in its order, with the state that there was."""
    assert verdicts(played(tmp_path, 0, **RUNS[name])) == [SAME] * 4


@pytest.mark.parametrize("name", ["FedAdam", "SCAFFOLD"])
def test_the_lineage_says_how_far_back(tmp_path: Path, name: str) -> None:
    """Two updates of each learner: the newest two rounds can be made again, with models and states from before them."""
    older, old, *newest = verdicts(played(tmp_path, 2, **RUNS[name]))
    assert newest == [SAME] * 2
    for one in (older, old):
        assert f"{LEARNERS} of {LEARNERS} updates" in one
        assert one.endswith("; lineage_length was 2")


def test_the_default_lineage_is_enough_for_the_newest_round(tmp_path: Path) -> None:
    """Of those before nothing is left but the models that are kept anyway."""
    *gone, newest = verdicts(played(tmp_path, 1))
    assert newest == SAME
    assert all(one.startswith("not kept: ") and "lineage_length was 1" in one for one in gone)


def test_a_changed_update_is_named(folder: Path) -> None:
    """One bit of an update: its learner is named, other rounds are not touched by it."""
    change_a_byte(folder / "models" / rounds(folder, 2)[0].manifest.updates[2].key)
    assert verdicts(folder) == [SAME, "differs: update of learner-2 was changed", SAME, SAME]


def test_a_missing_update_is_not_kept(folder: Path) -> None:
    """Nobody can tell, which is no difference; what was changed beside it is one."""
    updates = rounds(folder, 2)[0].manifest.updates
    for update in updates[:3]:
        (folder / "models" / update.key).unlink()
    assert verdicts(folder, 2) == ["not kept: 3 of 4 updates; lineage_length was 0"]
    change_a_byte(folder / "models" / updates[3].key)
    assert verdicts(folder, 2) == ["differs: update of learner-3 was changed"]


def test_changed_models_are_named(folder: Path) -> None:
    """A model is the parent of one round and what another made."""
    change_a_byte(folder / "models" / rounds(folder, 2)[0].manifest.model)
    made, parent = verdicts(folder)[1:3]
    assert (made, parent) == ("differs: the stored model was changed", "differs: its parent was changed")


def test_a_changed_manifest_differs(folder: Path) -> None:
    """A digest, a factor, an order that is not what it was."""
    manifest = rounds(folder, 3)[0].manifest
    other = rounds(folder, 1)[0].manifest.model
    rewrite(folder, "manifest", manifest.key, model=other)
    assert verdicts(folder)[2:] == [
        f"differs: its updates make the model {manifest.model[7:19]}",
        "differs: its parent is not the model of round 3",
    ]
    first, *others = [one.model_dump(mode="json") for one in manifest.updates]
    rewrite(folder, "manifest", manifest.key, model=manifest.model, updates=[{**first, "factor": 9.5}, *others])
    assert verdicts(folder, 3) == ["differs: the factor of learner-0 is 9.5, its metadata make it 10"]
    rewrite(folder, "manifest", manifest.key, updates=others)
    assert verdicts(folder, 3)[0].startswith("differs: its updates make the model ")


def test_a_changed_configuration_differs(folder: Path) -> None:
    """Another rule than that of the run."""
    (one,) = rounds(folder, 1)
    with sqlite3.connect(folder / "state.sqlite") as connection:
        (row,) = connection.execute("SELECT data FROM row WHERE kind = 'run'").fetchone()
    connection.close()
    config = {**json.loads(row)["config"], "aggregation_rule": "Median"}
    rewrite(folder, "run", one.manifest.run_id, config=config)
    assert verdicts(folder) == ["differs: the configuration of the run was changed"] * 4


def test_a_key_that_came_later_changes_no_digest(folder: Path) -> None:
    """A folder of a version whose configurations had a key less, and whose manifests named no arithmetic."""
    with sqlite3.connect(folder / "state.sqlite") as connection:
        (row,) = connection.execute("SELECT data FROM row WHERE kind = 'run'").fetchone()
        config = json.loads(row)["config"]
        assert config.pop("advance") == "auto"
        old = config_digest(canonical(config))
        found = connection.execute("SELECT key, data FROM row WHERE kind = 'manifest'").fetchall()
        for key, text in found:
            manifest = {**json.loads(text), "config": old}
            assert manifest.pop("arithmetic") == ARITHMETIC
            connection.execute("UPDATE row SET data = ? WHERE key = ?", (json.dumps(manifest).encode(), key))
    connection.close()
    rewrite(folder, "run", rounds(folder, 1)[0].manifest.run_id, config=config)
    assert verdicts(folder) == [SAME] * 4


def test_rounds_of_another_arithmetic_prove_nothing_by_other_bits(folder: Path, tmp_path: Path) -> None:
    """The same bits prove as much as any; of others it is said, nothing is called different, and the command does not
    fail. An update that was changed was changed in any arithmetic."""
    manifest = rounds(folder, 4)[0].manifest
    rewrite(folder, "manifest", manifest.key, arithmetic=ARITHMETIC + 1)
    assert verdicts(folder) == [SAME] * 4
    rewrite(folder, "manifest", manifest.key, arithmetic=ARITHMETIC + 1, model=f"sha256-{'0' * 64}")
    told = f"not made again: made by version {ARITHMETIC + 1} of the arithmetic, this program has {ARITHMETIC}"
    assert verdicts(folder) == [SAME, SAME, SAME, told]
    said = metis("verify", "--data-dir", str(folder), cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert "4 rounds: 3 recomputed and the same, 0 differ, 1 not made again" in said.stdout
    change_a_byte(folder / "models" / manifest.updates[0].key)
    assert verdicts(folder)[3].startswith("differs: update of")


def test_a_changed_state_differs(tmp_path: Path) -> None:
    """The state of a server optimizer follows from the rounds, too."""
    folder = played(tmp_path, 0, **RUNS["FedAdam"])
    key = rounds(folder, 2)[0].manifest.states[1]
    assert key is not None
    change_a_byte(folder / "models" / key, 503)  # of a float32 the exponent
    first, second, third, last = verdicts(folder)
    assert (first, last) == (SAME, SAME)
    assert "the state of the server optimizer after it is another" in second
    assert third.startswith("differs: ")


@pytest.mark.parametrize("name", ["FedAvg", "SCAFFOLD", "FedRec", "FedAvg as they come"])
def test_factors_that_were_capped_are_made_again(tmp_path: Path, name: str) -> None:
    """From the metadata of the updates and the configuration of the run: what each counted, and the model of it."""
    folder = played(tmp_path, 0, rounds=8, examples={3: 2**53}, **RUNS.get(name, {}))
    assert verdicts(folder) == [SAME] * 8
    counted = {
        one.factor
        for round_ in rounds(folder)
        for one in round_.manifest.updates
        if one.learner == "learner-3" and len(round_.manifest.updates) + len(round_.manifest.beside) > 2
    }
    assert counted <= {10_500.0, 11_000.0, 11_500.0, 12_000.0} | ({2.0**53} if "as they come" in name else set())
    assert counted or name in ("FedRec", "FedAvg as they come")


def test_a_factor_that_counted_without_its_cap_differs(tmp_path: Path) -> None:
    """A manifest that says so is not believed: the metadata and the configuration make another."""
    folder = played(tmp_path, 0, rounds=1, examples={3: 2**53})
    (one,) = rounds(folder)
    *honest, last = [update.model_dump(mode="json") for update in one.manifest.updates]
    rewrite(folder, "manifest", one.manifest.key, updates=[*honest, {**last, "factor": 2.0**53}])
    told = "the factor of learner-3 is 9.0072e+15, its metadata make it 9.0072e+15, which counts as 11000"
    assert verdicts(folder) == [f"differs: {told}"]


def test_rounds_of_a_version_without_a_cap_are_made_without(tmp_path: Path) -> None:
    """Their configuration has no such key, their factors count as they are: the same arithmetic, the same model."""
    folder = played(tmp_path, 0, rounds=2, examples={3: 2**53}, schedule={"factor_cap": "none"})
    with sqlite3.connect(folder / "state.sqlite") as connection:
        (row,) = connection.execute("SELECT data FROM row WHERE kind = 'run'").fetchone()
        config = json.loads(row)["config"]
        assert config["schedule"].pop("factor_cap") == "none"
        for key, text in connection.execute("SELECT key, data FROM row WHERE kind = 'manifest'").fetchall():
            manifest = {**json.loads(text), "config": config_digest(canonical(config))}
            assert manifest.pop("beside") == {}
            assert manifest["updates"][3]["factor"] == 2.0**53
            connection.execute("UPDATE row SET data = ? WHERE key = ?", (json.dumps(manifest).encode(), key))
    connection.close()
    rewrite(folder, "run", rounds(folder, 1)[0].manifest.run_id, config=config)
    assert verdicts(folder) == [SAME] * 2


def test_what_cannot_be_verified_is_refused(folder: Path, tmp_path: Path) -> None:
    """No folder, no such run, no such round, no models: in words."""
    with pytest.raises(InvalidConfig, match=r"state.sqlite is not there"):
        rounds(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(InvalidRequest, match="made no model in round 9; it made 4"):
        rounds(folder, 9)
    with pytest.raises(UnknownRun, match="there is no run 'nope' in"):
        written(folder, "nope")
    shutil.rmtree(folder / "models")
    with pytest.raises(InvalidConfig, match="name the folder of a controller with the store OnDisk"):
        rounds(folder)
    (folder / "state.sqlite-wal").unlink(missing_ok=True)
    (folder / "state.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(InvalidConfig, match="cannot be read"):
        rounds(folder)
