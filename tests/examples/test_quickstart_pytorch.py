"""The five terminals of the PyTorch quickstart, as real processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Process, free_port
from tests.examples.layouts import cifar10_files, write_archive, write_fashion_mnist
from tests.examples.terminals import ANOTHER_ORDER, EXAMPLES, ORDERS, Terminals, skip_loudly, trained_together

FOLDER = EXAMPLES / "quickstart-pytorch"
SCRIPT = EXAMPLES.parent / "scripts" / "fashion-mnist"
FASHION_MNIST = ("--dataset", "fashion-mnist")


@pytest.fixture(autouse=True)
def _torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        skip_loudly("the PyTorch quickstart needs torch: pip install torch")


def terminals(
    start: Callable[..., Process], folder: Path, data: Path, *learner_flags: str, rounds: int = 5
) -> Terminals:
    """The programs on a free port; the driver ends them all."""
    port = ("--port", str(free_port()))
    shared = (*port, "--data-dir", str(data), *learner_flags)
    commands = {f"learner-{i}": (str(FOLDER / "learner.py"), "-l", str(i), *shared) for i in (1, 2, 3)}
    commands["controller"] = (str(FOLDER / "controller.py"), *port)
    commands["driver"] = (str(FOLDER / "driver.py"), *port, "--rounds", str(rounds), "--shutdown")
    return Terminals(start, commands, folder)


@pytest.mark.slow
@pytest.mark.timeout(300)
@ANOTHER_ORDER
def test_the_five_terminals_work_in_another_order(
    start: Callable[..., Process], tmp_path: Path, order: tuple[str, ...]
) -> None:
    """Two rounds on a few pictures of Fashion-MNIST's layout; the driver tells each round's loss and accuracy.

    The order of the README is that of the next test.
    """
    write_fashion_mnist(tmp_path / "data")
    five = terminals(start, tmp_path, tmp_path / "data", *FASHION_MNIST, rounds=2)
    results = five.run(order, 150)
    assert trained_together(results, rounds=2)
    counts = [task["metadata"]["num_training_examples"] for task in results["tasks"] if task["kind"] == "train"]
    assert counts == [30] * 6  # a third of the 90 pictures each, twice
    said = (tmp_path / "driver.log").read_text()
    for one in results["rounds"]:
        scores = one["evaluation_metrics"]["combined"]
        assert f"round {one['round']}: loss {scores['loss']:.4f}, accuracy {scores['accuracy']:.4f}" in said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cifar10_is_the_default(start: Callable[..., Process], tmp_path: Path) -> None:
    """One round on 60 of the pictures of an archive in CIFAR-10's binary layout, 20 a learner."""
    (tmp_path / "data").mkdir()
    files = cifar10_files(np.random.default_rng(0), records=20)
    write_archive(tmp_path / "data" / "cifar-10-binary.tar.gz", files)
    five = terminals(start, tmp_path, tmp_path / "data", "--rows", "60", rounds=1)
    results = five.run(ORDERS["as in the README"], 150)
    assert trained_together(results, rounds=1)
    counts = [task["metadata"]["num_training_examples"] for task in results["tasks"] if task["kind"] == "train"]
    assert counts == [20, 20, 20]
    assert results["run"]["config"]["scaling_factor"] == "NumParticipants"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_seed_makes_one_model(start: Callable[..., Process], tmp_path: Path) -> None:
    """Two runs with the same learners, and one with new ones, end in the same digest, momentum and shuffles and all."""
    write_fashion_mnist(tmp_path / "data")
    made: list[str] = []
    for place, runs in (("first", 2), ("second", 1)):
        folder = tmp_path / place
        folder.mkdir()
        five = terminals(start, folder, tmp_path / "data", *FASHION_MNIST, rounds=2)
        for name in ORDERS["as in the README"][:-1]:
            start(f"{place}-{name}", *five.commands[name], cwd=folder)
        for left in reversed(range(runs)):
            command = [word for word in five.commands["driver"] if word != "--shutdown" or not left]
            driver = start(f"{place}-driver-{left}", *command, cwd=folder)
            assert driver.wait(120) == 0, driver.tail()
            results = json.loads((folder / "results.json").read_text())
            assert trained_together(results, rounds=2)
            made.append(results["run"]["model"])
    assert len(made) == 3
    assert len(set(made)) == 1


@pytest.fixture(scope="module")
def fashion_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the real data."""
    folder = tmp_path_factory.mktemp("fashion-mnist")
    done = subprocess.run([SCRIPT, folder], capture_output=True, text=True, timeout=300)
    if done.returncode == 77:
        skip_loudly(f"the real Fashion-MNIST cannot be had here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_all_of_fashion_mnist_reaches_an_accuracy_of_0_80(
    start: Callable[..., Process], tmp_path: Path, fashion_mnist: Path
) -> None:
    """All 60,000 rows, five rounds, the controller last: at least 0.80 on the 10,000 test pictures."""
    five = terminals(start, tmp_path, fashion_mnist, *FASHION_MNIST)
    results = five.run(ORDERS["the controller last"], 300)
    assert trained_together(results, rounds=5)
    counts = [task["metadata"]["num_training_examples"] for task in results["tasks"] if task["kind"] == "train"]
    assert counts == [20_000] * 15
    accuracy = [one["evaluation_metrics"]["combined"]["accuracy"] for one in results["rounds"]]
    assert accuracy[-1] >= 0.80
