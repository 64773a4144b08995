"""State folders that earlier versions left: read, told and gone on with as by the version that left them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.redis_server import RedisServer, require_redis
from tests.witnesses.answers import differences, facts
from tests.witnesses.commands import free_port, verify
from tests.witnesses.folders import SUMS, files, load, unpack
from tests.witnesses.observing import observe

HERE = Path(__file__).parent
VERSIONS = [path.parent for path in sorted(HERE.glob(f"*/{SUMS}"))]
ARCHIVES = [path for version in VERSIONS for path in sorted(version.glob("*.tar.gz"))]
# What was changed on purpose: a pattern of the places that differ, as the test names them, and the words of
# CHANGELOG.md that tell of it and of its migration.
ON_PURPOSE: dict[str, str] = {
    r"/tasks/\w+/result/url was": "Tasks of kind `evaluate` name `PUT /v1/tasks/{task_id}/scores` in `result.url`",
    r".*/evaluation_metrics/combined/\w+ was": "equal scores combine to themselves",
    r"/enrolled again/": "An `Idempotency-Key` gives no other token once the first was used.",
}
# The same of one archive alone: of runs that went on by another rule of arithmetic.
GOES_ON = r"/(end|verified at the end)/.*(model|parent|best_round|accuracy|loss) was|/verified.*/verdict was 'same'"
OTHERWISE = {
    "0.1/asynchronous-recency": "FedRec is the mean of everybody's newest update whatever came",
    "0.1/asynchronous-left": "FedRec is the mean of everybody's newest update whatever came",
    "0.1/aggregating": "ClipNorm stores no update above its bound",
    "0.1/coded": "Updates as `int8` have error feedback, as `topk` has",
}
PLACE = re.compile(rb"/(?:home|root|tmp|opt|mnt|work|workspace|Users|var|srv|builds)/")


def named(path: Path) -> str:
    """For the test's id: 0.1/finished."""
    return str(path.relative_to(HERE)).removesuffix(".tar.gz")


def beside(archive: Path, end: str) -> Any:
    """The JSON beside an archive."""
    return json.loads(archive.with_name(archive.name.removesuffix(".tar.gz") + end).read_text(encoding="utf-8"))


@contextlib.contextmanager
def redis_of(archive: Path, folder: Path) -> Iterator[str | None]:
    """The URL of a server that holds the archive's keys; None for models on a disk."""
    if "Redis" not in beside(archive, ".json")["flags"]:
        yield None
        return
    require_redis()
    server = RedisServer(folder, free_port())
    try:
        load(server.url, beside(archive, "-keys.json"))
        yield server.url
    finally:
        server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("archive", ARCHIVES, ids=named)
def test_a_controller_goes_on_with_the_folder(archive: Path, tmp_path: Path) -> None:
    """The answers to every reading call are what they were; open tasks, tokens, repeated results and starts hold; the
    learners come back and the run ends with the same models bit by bit; `metis verify` finds the same before and
    after."""
    witness = beside(archive, ".json")
    with redis_of(archive, tmp_path / "redis") as url:
        seen = observe(witness, archive, tmp_path / "copy", url)
    found = differences(witness["observed"], seen)
    places = [*ON_PURPOSE, *([GOES_ON] if named(archive) in OTHERWISE else [])]
    unlike = [line for line in found if not any(re.match(place, line) for place in places)]
    assert not unlike, "\n".join(unlike)


def test_what_was_changed_on_purpose_is_told() -> None:
    """In the changelog, word for word."""
    told = (HERE.parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert not [words for words in [*ON_PURPOSE.values(), *OTHERWISE.values()] if words not in told]


@pytest.mark.parametrize("kind", ["update", "model"])
@pytest.mark.parametrize("version", VERSIONS, ids=named)
def test_verify_tells_of_one_changed_bit(version: Path, kind: str, tmp_path: Path) -> None:
    """In a copy: a round that was the same differs, those that it has nothing to do with do not."""
    damages = json.loads((version / "damages.json").read_text(encoding="utf-8"))
    name = next(one for one in damages if one.startswith("sha256-") == (kind == "model"))
    path = unpack(version / "finished.tar.gz", tmp_path / "copy") / "models" / name
    data = bytearray(path.read_bytes())
    data[damages[name]["byte"]] ^= 1
    path.write_bytes(data)
    status, told = verify(tmp_path / "copy" / "data")
    verdicts = {one["verdict"] for one in told["rounds"]}
    assert (status, verdicts) == (1, {"same", "differs"})
    assert not list(differences(damages[name]["rounds"], facts(told)))


@pytest.mark.parametrize("version", VERSIONS, ids=named)
def test_nothing_was_changed(version: Path) -> None:
    """Every file is the one that was made with the version; none is gone, none was added."""
    lines = (version / SUMS).read_text(encoding="utf-8").splitlines()
    known = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {str(path.relative_to(version)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files(version)}
    assert found == known


@pytest.mark.parametrize("archive", ARCHIVES, ids=named)
def test_no_path_of_a_machine_is_in_it(archive: Path) -> None:
    """Names in the archive are relative, and nothing in it says where it was made, or by whom."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            assert entry.name.split("/")[0] in ("data", "agents")
            assert (entry.uname, entry.gname, entry.uid, entry.gid) == ("", "", 0, 0)
            file = tar.extractfile(entry)
            assert not (found := PLACE.search(file.read() if file else b"")), (entry.name, found)
    assert not PLACE.search(json.dumps(beside(archive, ".json")).encode())


def test_the_first_version_is_there() -> None:
    """Each kind of state that 0.1 could leave."""
    names = {named(path) for path in ARCHIVES if path.parent.name == "0.1"}
    moments = ("finished", "initializing", "mid-round", "agents", "aggregating", "evaluating", "by-hand")
    streams = ("asynchronous", "asynchronous-recency", "asynchronous-left")
    kinds = (*streams, "scaffold", "scaffold-aggregating", "coded", "redis")
    assert names == {f"0.1/{one}" for one in (*moments, *kinds)}
