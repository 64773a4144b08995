"""The locks of requirements/: in step with pyproject.toml and each other, each file by its hash, from nowhere named."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("dev", "redis", "sklearn", "torch", "vision")  # each adds to base.txt
NAMES = ("base", "build", *EXTRAS)
LEFT_OUT = re.compile(r"torch|torchvision|triton|nvidia-.+|cuda-.+")  # decision 19
NEEDED_BY_TORCH = {"filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions"}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")

Environment = dict[str, str]


def environment(python: str, system: str, machine: str) -> Environment:
    """What markers ask of CPython `python`, a version of three numbers, on `system`."""
    return {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": system,
    }


ENVIRONMENTS = [
    environment(python, system, machine)
    for python in ("3.11.0", "3.11.9", "3.12.3", "3.13.1", "3.14.0")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"))
]
everywhere = pytest.mark.parametrize(
    "where",
    ENVIRONMENTS,
    ids=lambda e: "-".join(e[k] for k in ("python_full_version", "sys_platform", "platform_machine")),
)
every_lock = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Pin:
    """A line of a lock, with the hashes that follow it."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        """In the form that all spellings share."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """What stands behind ==."""
        return str(self.requirement.specifier).removeprefix("==")


def text(name: str) -> str:
    """The lock as it was written."""
    return (ROOT / "requirements" / f"{name}.txt").read_text()


@cache
def pins(name: str) -> tuple[Pin, ...]:
    """What a lock holds."""
    code = "\n".join(line for line in text(name).splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        pinned, *hashes = line.split(" --hash=")
        found.append(Pin(Requirement(pinned), tuple(f"--hash={one.strip()}" for one in hashes)))
    return tuple(found)


def installed(names: tuple[str, ...], where: Environment) -> dict[str, str]:
    """Name and version of what pip takes from these locks together; fails where two of them disagree."""
    found: dict[str, str] = {}
    for pin in (pin for name in names for pin in pins(name)):
        if pin.requirement.marker is None or pin.requirement.marker.evaluate(where):
            assert found.setdefault(pin.name, pin.version) == pin.version, f"{pin.name} has two versions in {names}"
    return found


@cache
def pyproject() -> dict[str, Any]:
    """pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def wanted(name: str) -> list[Requirement]:
    """What pyproject.toml asks for and a lock has to give, together with base.txt where it is an extra's."""
    project = pyproject()
    given = {
        "base": project["project"]["dependencies"],
        "build": [*project["build-system"]["requires"], *project["dependency-groups"]["build"]],
        **project["project"]["optional-dependencies"],
    }[name]
    return [one for one in map(Requirement, given) if not LEFT_OUT.fullmatch(canonicalize_name(one.name))]


def test_every_extra_has_its_lock_and_nothing_else_has() -> None:
    """A new extra is locked, and a lock whose extra is gone goes too."""
    assert set(pyproject()["project"]["optional-dependencies"]) == set(EXTRAS)
    assert {file.name for file in (ROOT / "requirements").iterdir()} == {f"{name}.txt" for name in NAMES}


@everywhere
@every_lock
def test_what_pyproject_asks_for_is_locked(name: str, where: Environment) -> None:
    """Each dependency that applies has a version within its bound; if this fails: `make lock`."""
    have = installed(("base", name) if name in EXTRAS else (name,), where)
    for need in wanted(name):
        if need.marker is None or need.marker.evaluate(where):
            version = have.get(canonicalize_name(need.name))
            assert version is not None, f"{need} is not in {name}.txt: make lock"
            assert need.specifier.contains(version, prereleases=True), f"{need}, but {version} is locked: make lock"


@everywhere
def test_the_locks_agree_with_each_other(where: Environment) -> None:
    """Any of them may be installed together: a package has one version in all of them."""
    assert installed(NAMES, where)


@every_lock
def test_everything_is_pinned_with_its_hashes(name: str) -> None:
    """One version, and the sha256 of each of its files: pip --require-hashes takes nothing else."""
    assert pins(name)
    for pin in pins(name):
        assert [one.operator for one in pin.requirement.specifier] == ["=="], pin
        assert "*" not in pin.version, pin
        assert pin.hashes, pin
        assert all(HASH.fullmatch(one) for one in pin.hashes), pin


@every_lock
def test_a_lock_names_no_place(name: str) -> None:
    """Neither a registry nor a folder: it serves whoever has the packages from wherever."""
    assert not re.search(r"://|\w@|--(extra-)?index|--find-links|--trusted-host|file:|\.(com|org|io|net)\b", text(name))
    paths = [line for line in text(name).splitlines() if re.search(r"(^|[\s(:=])[/~.]{1,2}[\w.]*/|\\\w|(^|\s)/", line)]
    assert paths == []
    assert text(name).splitlines()[1].strip("# ") == "make lock"


@every_lock
def test_torch_and_what_belongs_to_its_builds_is_left_out(name: str) -> None:
    """Which build is wanted differs from machine to machine, and most are gigabytes."""
    assert [pin.name for pin in pins(name) if LEFT_OUT.fullmatch(pin.name)] == []


@everywhere
def test_what_torch_needs_beside_its_build_is_locked(where: Environment) -> None:
    """`pip install --no-deps torch` after the lock gives a torch that works."""
    for name in ("torch", "vision"):
        assert set(installed(("base", name), where)) >= NEEDED_BY_TORCH


def test_what_the_torch_that_is_here_needs_is_locked() -> None:
    """NEEDED_BY_TORCH is not from memory: the torch that the tests run with says the same of itself."""
    try:
        needs = [Requirement(one) for one in metadata.requires("torch") or ()]
    except metadata.PackageNotFoundError:
        pytest.skip("torch is not installed")
    here = {canonicalize_name(one.name) for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})}
    locked = {pin.name for name in ("base", "torch") for pin in pins(name)}
    assert {name for name in here if not LEFT_OUT.fullmatch(name)} <= locked
