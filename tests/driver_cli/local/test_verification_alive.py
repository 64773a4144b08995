"""`metis verify` beside a controller that runs, was killed, goes on, and ended: always offline, never in its way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..processes import LocalFederation, end, metis
from .played_runs import print_of

LEARNERS = 3
PARAMS = "300000"  # 1.2 MB: large enough for files to be used again


class Durable(LocalFederation):
    """A federation whose controller keeps its state."""

    def start_controller(self, **environment: str) -> None:
        """Start it with two updates of each learner."""
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.folder / "data"))
        self.start("controller_api", *where, "--model-store", "OnDisk", "--lineage-length", "2", **environment)

    def start_learners(self, count: int) -> None:
        """Start learners that train nothing."""
        given = ("--controller", self.url, "--learners", str(count), "--params", PARAMS)
        self.start("learner_agent.synthetic", *given)

    def run(self) -> None:
        """A run of three rounds."""
        done = metis("run", "--controller", self.url, "--rounds", "3", cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def verify(self) -> None:
        """The newest two rounds are the same."""
        said = metis("verify", cwd=self.folder, METIS_DATA_DIR="data")
        assert (said.returncode, said.stdout.count("recomputed: same")) == (0, 2), said.stdout + said.stderr


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Durable]:
    """A controller and its learners."""
    one = Durable(tmp_path)
    try:
        one.start_controller()
        one.wait_for(0)
        one.start_learners(LEARNERS)
        one.wait_for(LEARNERS)
        yield one
    finally:
        one.end()


@pytest.mark.slow
def test_it_works_whatever_the_controller_does(durable: Durable) -> None:
    """It runs: it goes on. It was killed: what it left is as it was, and it starts again. It ended in order."""
    data = durable.folder / "data"
    durable.run()
    durable.verify()
    durable.processes[0].kill()
    durable.processes[0].wait(20)
    left = print_of(data)
    durable.verify()
    assert print_of(data) == left
    durable.start_controller()
    durable.wait_for(LEARNERS)
    durable.run()
    durable.verify()
    durable.processes[1].kill()  # learners that end in order leave, and their updates with them
    end(durable.processes[2])
    left = print_of(data)
    assert not (data / "state.sqlite-wal").exists()
    durable.verify()
    assert print_of(data) == left
