"""Learners that wait: what is measured, and how many there may be."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import pytest

from driver_cli.bench.idle import raise_file_limit
from services.errors import InvalidConfig

from ..processes import metis

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.mark.slow
@linux
def test_measures_learners_that_wait(tmp_path: Path) -> None:
    """They are all enrolled and get their task within a bound; memory, CPU time and ends of polls are told."""
    done = metis("bench", "--idle", "40", "--idle-seconds", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    idle = json.loads(done.stdout)["idle"]
    assert (idle["polls"], idle["woken"], idle["ended_polls"]) == (40, 40, 0)
    assert 0 < idle["last_task_after_post_ms"]["min"] < 5000
    assert idle["last_task_ms"]["median"] < idle["last_task_after_post_ms"]["median"]
    assert idle["cpu_percent"] >= 0


def test_too_few_open_files_are_an_error() -> None:
    """It says how many are needed and how many there may be, and leaves the limit as it was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] == resource.RLIM_INFINITY:
        pytest.skip("no limit is set")
    with pytest.raises(InvalidConfig, match=f"{before[1] + 1} open files are needed and the system allows {before[1]}"):
        raise_file_limit(before[1] + 1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    raise_file_limit(10)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
