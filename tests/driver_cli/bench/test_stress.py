"""A case of the stress test: turns, and the memory that it needs."""

from __future__ import annotations

import sys

import pytest

from driver_cli.bench.sizes import sizes
from driver_cli.bench.stress import Stress, turns
from services.errors import InvalidConfig

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def test_floor_and_federation_take_turns() -> None:
    """Three rounds each in turn, or one where a round is long; all rounds are done."""
    assert turns(7, 0.03) == [3, 3, 1]
    assert turns(3, 4.0) == [1, 1, 1]


@linux
def test_more_memory_than_there_is_is_refused() -> None:
    """Before anything starts, with an estimate: the floor's learners, the federation's, the updates, the slots."""
    (size,) = sizes("1000M")
    with pytest.raises(InvalidConfig, match=r"the learners 4.*, the controller 4.*, the floor 4.*GB are free"):
        Stress(size, 1000).check_memory()
    Stress(sizes("100k")[0], 2).check_memory()
