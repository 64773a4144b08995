"""Learners that only wait."""

from __future__ import annotations

import pytest

from driver_cli.bench.crowd import Crowd
from tests.conftest import Served


async def test_waiting_learner_that_is_refused_is_told(served: Served) -> None:
    """What a learner of the crowd hears instead of a task is kept, so that nothing is measured of it."""
    crowd = Crowd(served.port, wait_s=1.0)
    await crowd.enrol(2)
    assert crowd.enrolled == 2
    again = Crowd(served.port, wait_s=1.0)
    with pytest.raises(ExceptionGroup):
        await again.enrol(1)  # the same names
    assert "409" in str(again.refused)
    crowd.close()
    again.close()
