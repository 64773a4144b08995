"""The federation that is measured."""

from __future__ import annotations

import os

import pytest

from driver_cli.bench.testbed import spread


@pytest.mark.parametrize("learners", [1, 2, 3, 10, 101])
def test_learners_are_spread_over_the_cores(learners: int) -> None:
    """Every number once, in as many processes as there are cores, none of which is empty."""
    found = spread(learners)
    assert [number for places in found for number in places] == list(range(learners))
    assert len(found) == min(learners, os.cpu_count() or 1)
    assert all(found)
