"""A folder that looks like a fresh clone, for the commands of the documentation, with free ports for the usual ones."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import free_port
from tests.docs.pages import ROOT

PARTS = (
    *("services", "controller_api", "learner_agent", "driver_cli", "examples", "scripts", "docs", "tests"),
    *("federation.toml", "pyproject.toml", "docker-compose.yml", "docker-compose.redis.yml", "Makefile", "README.md"),
)
USUAL_PORTS = ("8080", "50051", "6379")
TEXT = (".py", ".toml", ".yml", ".md", ".sh", "")


@dataclass(frozen=True)
class Clone:
    """The folder, and the port that stands for each usual one: other federations of this machine are left alone."""

    folder: Path
    ports: Mapping[str, str]

    def text(self, given: str) -> str:
        """`given` with this clone's ports."""
        return re.sub(rf"\b({'|'.join(USUAL_PORTS)})\b", lambda found: self.ports[found[1]], given)

    def environment(self, **given: str) -> dict[str, str]:
        """Of a process that uses the clone's packages, and no setting of another federation."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("METIS_")}
        scripts = Path(sys.executable).parent
        return {
            **kept,
            "PATH": f"{scripts}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.folder / "home"),
            **given,
        }


def make_clone(folder: Path) -> Clone:
    """Copy what a clone holds and what the documentation uses of it."""
    clone = Clone(folder, {port: str(free_port()) for port in USUAL_PORTS})
    for part in PARTS:
        source, target = ROOT / part, folder / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".metis", "*.log", "*.png"))
        elif source.exists():
            shutil.copy2(source, target)
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix in TEXT:
            old = file.read_text(encoding="utf-8")
            if (new := clone.text(old)) != old:
                file.write_text(new, encoding="utf-8")
    (folder / "home").mkdir()
    return clone
