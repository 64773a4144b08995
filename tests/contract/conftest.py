"""Tools of others, for the OpenAPI document: installed once, by locks, into .venv; where they are not to be had, the
tests say why they are skipped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from controller_api.app import create_app
from controller_api.http import describe
from services import ModelStoreConfig
from tests.controller_api.driving import settings

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / ".venv" / "contract"
INSTALL_S, RUN_S = 300, 180
NODE = 20
Run = Callable[..., str]


def skip(why: str) -> NoReturn:
    """What is skipped for want of a tool is said loudly."""
    warnings.warn(f"THE CONTRACT'S DOCUMENT WAS NOT TRIED: {why}", stacklevel=1)
    pytest.skip(why)


def installed(lock: Path, install: Callable[[Path], list[list[str]]]) -> Path:
    """The folder of what a lock names, made by commands the first time."""
    folder = TOOLS / f"{lock.stem}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as made:
        for command in install(Path(made)):
            try:
                done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            except subprocess.TimeoutExpired:
                skip(f"{command[0]} did not end in {INSTALL_S} s")
            if done.returncode:
                skip(f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()[-300:]}")
        if not folder.exists():  # another process may have been faster
            Path(made).rename(folder)
            Path(made).mkdir()
    return folder


def run(*command: str, cwd: Path, seconds: float = RUN_S, **environment: str) -> str:
    """What a command says; fails with it."""
    quiet = {"NO_COLOR": "1", "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("METIS_")}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            env={**clean, **quiet, **environment},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"{command[0]} took {seconds:g} s:\n{late.output}") from None
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def node() -> Run:
    """`node("redocly", "lint", …, cwd=folder)`: a program of package-lock.json, or node itself."""
    for needed in ("node", "npm"):
        if shutil.which(needed) is None:
            skip(f"there is no {needed}")
    version = run("node", "--version", cwd=HERE)
    if int(version.removeprefix("v").partition(".")[0]) < NODE:
        skip(f"node is {version.strip()}, the tools want {NODE}")

    def install(folder: Path) -> list[list[str]]:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        return [["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]]

    modules = installed(HERE / "package-lock.json", install) / "node_modules"

    def program(name: str, *arguments: str, cwd: Path) -> str:
        if not (cwd / "node_modules").exists():
            (cwd / "node_modules").symlink_to(modules)
        return run("node" if name == "node" else str(modules / ".bin" / name), *arguments, cwd=cwd)

    return program


@pytest.fixture(scope="session")
def python() -> Run:
    """`python("learner.py", …, cwd=folder)`: a file, or a module of python.txt, in an environment of its own."""

    def install(folder: Path) -> list[list[str]]:
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        return [[sys.executable, "-m", "venv", str(folder)], [*pip, "--require-hashes", "-r", str(HERE / "python.txt")]]

    environment = installed(HERE / "python.txt", install)

    def program(name: str, *arguments: str, **more: Any) -> str:
        what = (name,) if name.endswith(".py") else ("-m", name)
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return run(str(environment / "bin" / "python"), *what, *arguments, PATH=path, **more)

    return program


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenAPI document as a file, in a folder of its own."""
    file = tmp_path_factory.mktemp("contract") / "openapi.json"
    file.write_text(json.dumps(describe(create_app(settings(), model_store_config=ModelStoreConfig()))))
    return file
