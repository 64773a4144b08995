"""The two commits: checked out beside each other, each run with its own code and nothing else of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .interrupts import uninterrupted

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("services", "controller_api", "learner_agent", "driver_cli")
BENCH_S = 900.0  # one call of `metis bench` that takes longer is broken
END_S = 30.0  # how long it has to end its processes
ASK_S = 120.0  # git, and Python asked for its code
TAIL_LINES = 15
ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
)  # what git tells the programs that it runs: not for a worktree


class Failed(Exception):
    """Nothing can be said; the message says why."""


@dataclass(frozen=True)
class Tree:
    """A commit, checked out."""

    commit: str  # its id, whole
    told: str  # its id, short, and its subject
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """That has its code found first, without the settings of a federation and without a tracer of coverage."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METIS_", "COV"))}
        path = os.pathsep.join([str(self.folder), *filter(None, [kept.get("PYTHONPATH")])])
        return {**kept, "PYTHONPATH": path, "TMPDIR": str(self.folder.parent)}

    def check_code(self) -> None:
        """Raise Failed unless Python, started as the bench starts it, takes every package from here."""
        ask = f"import json, {', '.join(PACKAGES)}; print(json.dumps([{', '.join(f'{p}.__file__' for p in PACKAGES)}]))"
        done = subprocess.run(
            [sys.executable, "-c", ask],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=ASK_S,
        )
        if done.returncode:
            raise Failed(f"{self.told}: its packages cannot be imported\n{tail(done.stderr)}")
        for file in json.loads(done.stdout):
            if not Path(file).resolve().is_relative_to(self.folder.resolve()):
                raise Failed(f"{self.told}: Python takes {file} instead of the code in {self.folder}")

    def bench(self, options: Sequence[str]) -> Any:
        """What its `metis bench` measured; raises Failed."""
        out, log = self.folder.parent / "measured.json", self.folder.parent / "bench.log"
        out.unlink(missing_ok=True)
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "driver_cli", "bench", *options, "--out", str(out)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                process_group=0,  # Ctrl-C reaches this program alone, which then ends it in order
            )
            try:
                status = process.wait(BENCH_S)
            except subprocess.TimeoutExpired:
                raise Failed(f"{self.told}: metis bench was not done after {BENCH_S:g} s") from None
            finally:
                with uninterrupted():
                    end(process)
        if status:
            raise Failed(
                f"{self.told}: metis bench ended with status {status}\n{tail(log.read_text(errors='replace'))}"
            )
        report = json.loads(out.read_bytes())
        if len(report.get("cases", [])) > 1:
            raise Failed(f"{' '.join(options)}: that is more than one case; name one size and one number of learners")
        return report


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, upon which the bench ends its processes, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)


def tail(text: str) -> str:
    """Its last lines."""
    return "\n".join(f"  {line}" for line in text.splitlines()[-TAIL_LINES:])


def git(*arguments: str) -> str:
    """What git answers; raises Failed."""
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", "-C", ROOT, *arguments], env=environment, capture_output=True, text=True, timeout=ASK_S
        )
    except FileNotFoundError:
        raise Failed("git is not installed") from None
    if done.returncode:
        raise Failed(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit_id(name: str) -> str:
    """The id of a commit; raises Failed."""
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    except Failed as error:
        raise Failed(f"there is no commit {name} here ({error})") from error


@contextlib.contextmanager
def checked_out(this: str, other: str) -> Iterator[tuple[Tree, Tree]]:
    """Worktrees of two commits, gone again afterwards."""
    with tempfile.TemporaryDirectory(prefix="metis-pair-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        trees = [  # names of equal length: even the length of an environment moves what a program costs
            Tree(commit, git("log", "-1", "--format=%h %s", commit), folder / part)
            for commit, part in ((this, "this"), (other, "that"))
        ]
        try:
            for tree in trees:
                with uninterrupted():
                    git("worktree", "add", "--detach", "--quiet", str(tree.folder), tree.commit)
            yield trees[0], trees[1]
        finally:
            with uninterrupted():
                for tree in trees:
                    if tree.folder.exists():
                        git("worktree", "remove", "--force", str(tree.folder))


def dependencies(folder: Path) -> dict[str, str]:
    """What a commit wants installed: its locks, and what pyproject.toml asks for."""
    locks = {f"requirements/{file.name}": file.read_text() for file in (folder / "requirements").glob("*.txt")}
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    asked = {key: project.get(key) for key in ("dependencies", "optional-dependencies")}
    return {**locks, "pyproject.toml": json.dumps(asked, sort_keys=True)}


def differing(this: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of the files that differ, or that one of them has not."""
    return sorted(name for name in this.keys() | other.keys() if this.get(name) != other.get(name))
