"""Every command and every program of the documentation is run, in the order of its page, by real processes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from services import config, messages
from tests.docs.clone import Clone, make_clone
from tests.docs.pages import SHELL, VERBS, Fence, all_fences
from tests.docs.script import put_files, script_of
from tests.docs.shown import assert_shown
from tests.examples.layouts import cifar10_files, write_archive, write_fashion_mnist

LIMIT_S = 240.0  # of a scenario
REASONS = {  # why a block may not be run here, and what then stands in each of its lines
    "install": r"^(make (demo|test|coverage|check|docker-smoke)\b|pip install |git clone |cd )",
    "docker": r"^(docker |LEARNERS?=\S+ docker )",
    "internet": r"^scripts/fashion-mnist ",
    "service": r"^(nginx|systemctl) ",
    "long": r"^scripts/(benchmarks pair|measure-rules) ",
}


def scenarios() -> list[tuple[str, list[Fence]]]:
    """The blocks that run, by page and scenario."""
    grouped = groupby(all_fences(), key=lambda fence: (fence.page, fence.scenario))
    found = [(f"{page}:{name}", list(blocks)) for (page, name), blocks in grouped]
    return [(name, blocks) for name, blocks in found if any(fence.runs for fence in blocks)]


SCENARIOS = scenarios()


def run(fences: list[Fence], clone: Clone) -> str:
    """Run a scenario to its end; returns what it said."""
    put_files(fences, clone)
    script = clone.folder / "outputs.sh"
    script.write_text(script_of([fence for fence in fences if fence.verb not in ("file", "insert")], clone))
    said = clone.folder / "said.txt"
    with said.open("w") as out:
        environment = clone.environment(METIS_DATA=str(clone.folder / "data"))
        process = subprocess.Popen(
            ["bash", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            status = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
            status = -1
    text = said.read_text(errors="replace")
    assert status == 0, f"status {status}\n{text[-3000:]}\n{_tails(clone)}"
    return text


def put_data(clone: Clone) -> None:
    """What a page has its reader download, as small generated files of the same layout."""
    (clone.folder / "data").mkdir()
    write_archive(clone.folder / "data" / "cifar-10-binary.tar.gz", cifar10_files(np.random.default_rng(7), 30))
    write_fashion_mnist(clone.folder / "home" / "fashion-mnist")


def _tails(clone: Clone) -> str:
    files = sorted((clone.folder / "outputs").glob("*"))
    return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-800:]}" for file in files)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize(("name", "fences"), SCENARIOS, ids=[name for name, _ in SCENARIOS])
def test_commands_work(name: str, fences: list[Fence], tmp_path: Path) -> None:
    """What a page says to type works as it stands, and prints what the page shows."""
    for module in fences[0].needs:
        if importlib.util.find_spec(module) is None and shutil.which(module) is None:
            pytest.skip(f"{name} needs {module}")
    clone = make_clone(tmp_path / "clone")
    if "torch" in fences[0].needs:
        put_data(clone)
    run([fence for fence in fences if fence.runs], clone)
    for fence, before in _shown(fences):
        assert_shown(fence, (clone.folder / "outputs" / str(before.line)).read_text())


def _shown(fences: list[Fence]) -> list[tuple[Fence, Fence]]:
    """Blocks that show an output, each with the block that printed it."""
    found: list[tuple[Fence, Fence]] = []
    before: Fence | None = None
    for fence in fences:
        if fence.verb == "output" and not fence.rest:
            assert before is not None, f"{fence}: nothing was run before it"
            found.append((fence, before))
        elif fence.runs and fence.verb not in ("file", "insert"):
            before = fence
    return found


@pytest.mark.parametrize("fence", [f for f in all_fences() if f.verb == "output" and f.rest], ids=str)
def test_output_of_a_command_is_as_shown(fence: Fence, tmp_path: Path) -> None:
    """A page shows what a command prints by lines of a real output."""
    command = fence.rest.removeprefix("of ").split()
    clone = make_clone(tmp_path / "clone")
    done = subprocess.run(
        command, cwd=clone.folder, env=clone.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_shown(fence, done.stdout)


def test_nothing_else_is_skipped() -> None:
    """Only blocks whose marker names a known reason, and whose every line is of that kind, are not run."""
    for fence in all_fences():
        if fence.verb == "skip":
            pattern = REASONS[fence.rest]
            lines = [line for line in fence.body.splitlines() if line.strip() and not line.startswith("#")]
            assert lines, fence
            assert all(re.match(pattern, line) for line in lines), f"{fence}: {lines}"
        elif fence.language in (*SHELL, "python"):
            assert fence.runs, fence


def test_markers_are_known() -> None:
    """A misspelt marker is found, not ignored."""
    for fence in all_fences():
        assert fence.verb is None or fence.verb in VERBS, f"{fence}: {fence.verb}"
        assert fence.language, f"{fence}: name the language of the block"


def test_readme_has_two_set_up_commands() -> None:
    """A clean clone needs `make demo` and `make test`, and nothing before them."""
    skipped = [f for f in all_fences() if f.page == "README.md" and f.rest == "install" and "make " in f.body]
    assert [line.split("#")[0].split() for fence in skipped for line in fence.body.splitlines()] == [
        ["make", "demo"],
        ["make", "test"],
    ]


@pytest.mark.parametrize("fence", [f for f in all_fences() if f.language in ("json", "toml")], ids=str)
def test_documents_are_valid(fence: Fence, tmp_path: Path) -> None:
    """JSON parses, and is the message that its marker names; TOML is a run's configuration."""
    if fence.language == "toml":
        file = tmp_path / "federation.toml"
        file.write_text(fence.body)
        assert config.load(file)
        return
    value = json.loads(fence.body)
    if fence.verb == "message":
        model = getattr(messages, fence.rest, None) or getattr(config, fence.rest)
        assert model.model_validate(value)
        assert set(value) <= set(model.model_fields) or fence.rest == "Problem"
