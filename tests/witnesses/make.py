"""Make the witnesses of a version: `python -m tests.witnesses.make --commands BIN COMMIT FOLDER`.

BIN is the folder of the installed commands of that version, FOLDER where `learner.py` lies and the rest is put. Each
state folder is made, read three times on copies, and kept when all that was observed is the same each time.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.redis_server import RedisServer
from tests.witnesses.answers import differences, facts
from tests.witnesses.commands import controller, environment, free_port, verify
from tests.witnesses.folders import SUMS, dump, files, load, module, pack, unpack
from tests.witnesses.observing import observe
from tests.witnesses.scenarios import SCENARIOS, Stage

TIMES = 3
PREFIX = "witness:"
PARTS = (*SCENARIOS, "damages", "openapi")


def make(name: str, out: Path, commit: str, commands: Path, scratch: Path) -> None:
    """One state folder as an archive, and beside it what was observed of it."""
    scenario, folder, archive = SCENARIOS[name], scratch / "data", out / f"{name}.tar.gz"
    learner = module(out / "learner.py")
    with contextlib.ExitStack() as stack:
        place: dict[str, str] = {}
        if "Redis" in scenario.flags:
            server = stack.enter_context(_redis(scratch / "redis"))
            place = {"METIS_MODEL_STORE_URL": server.url, "METIS_MODEL_STORE_PREFIX": PREFIX}
        armed = {"METIS_FAILPOINT": scenario.dies_at} if scenario.dies_at else {}
        at = stack.enter_context(controller(folder, *scenario.flags, commands=commands, given={**place, **armed}))
        stage = Stage(at, learner, folder, commands)
        scenario.play(stage)
        assert at.process.end(signal.SIGTERM if scenario.ends else signal.SIGKILL) in (0, -signal.SIGKILL)
        keys = dump(place["METIS_MODEL_STORE_URL"]) if place else None
    pack([one for one in (folder, scratch / "agents") if one.is_dir()], archive)
    if keys is not None:
        _write(out / f"{name}-keys.json", keys)
    witness: dict[str, Any] = {
        "made_by": _maker(commit, commands),
        "what": (scenario.play.__doc__ or "").strip(),
        "flags": list(scenario.flags),
        "prefix": PREFIX if keys is not None else None,
        "aggregating": scenario.dies_at is not None,
        "members": [asdict(one) for one in stage.members],
        "agents": stage.agents,
        "sent": stage.sent,
        "started": stage.started,
        "next": stage.next,
    }
    found = [_observed(witness, archive, scratch / f"copy-{at}", keys, commands) for at in range(TIMES)]
    unlike = [line for other in found[1:] for line in differences(found[0], other)]
    assert not unlike, "\n".join(unlike)
    _write(out / f"{name}.json", {**witness, "observed": found[0]})


def _observed(
    witness: dict[str, Any], archive: Path, scratch: Path, keys: dict[str, Any] | None, commands: Path
) -> dict[str, Any]:
    if keys is None:
        return observe(witness, archive, scratch, commands=commands)
    with _redis(scratch.with_name(f"{scratch.name}-redis")) as server:
        load(server.url, keys)
        return observe(witness, archive, scratch, server.url, commands)


def damages(out: Path, commands: Path, scratch: Path) -> dict[str, Any]:
    """What `metis verify` says of a finished run when one bit of a file among its models is another one."""
    found = {}
    folder = unpack(out / "finished.tar.gz", scratch / "copy")
    for path in sorted((folder / "models").iterdir()):
        whole = path.read_bytes()
        at = len(whole) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        status, told = verify(folder, commands=commands)
        path.write_bytes(whole)
        if status:
            found[path.name] = {"byte": at, "exit status": status, "rounds": facts(told)}
    return found


def openapi(commands: Path, scratch: Path) -> Any:
    """The document of the contract."""
    with controller(scratch / "data", commands=commands) as at:
        return at.http.get("/openapi.json").raise_for_status().json()


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder, free_port())
    try:
        yield server
    finally:
        server.kill()


def _maker(commit: str, commands: Path) -> dict[str, str]:
    command = [str(commands / "metis-controller"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    return {"version": said.split()[-1], "commit": commit, "python": platform.python_version()}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sum(out: Path) -> None:
    """The checksums of all that is there, in the form of sha256sum."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n" for path in files(out)]
    (out / SUMS).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="instead of all")
    parser.add_argument("commit")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    commands, out = given.commands.resolve(), given.folder.resolve()
    scratch = Path(tempfile.mkdtemp(prefix="witnesses-"))
    try:
        for name in given.only or PARTS:
            began, folder = time.monotonic(), scratch / name
            folder.mkdir()
            if name in SCENARIOS:
                make(name, out, given.commit, commands, folder)
            elif name == "damages":
                _write(out / "damages.json", damages(out, commands, folder))
            else:
                _write(out / "openapi.json", openapi(commands, folder))
            print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
        _sum(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
