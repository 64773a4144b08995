"""The floor: bare sockets make the mean."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from driver_cli.bench import floor


def test_floor_makes_the_mean() -> None:
    """Two learners add 0.001 and 0.002 to the first value: the mean moves by 0.0015; the rest stays."""
    server = floor.Server(params=100_000, learners=2)
    learners = [threading.Thread(target=floor.learn, args=(server.port, index, 100_000)) for index in (0, 1)]
    for learner in learners:
        learner.start()
    server.accept()
    before = server.model.copy()
    assert server.round() > 0
    moved = server.model - before
    server.close()
    for learner in learners:
        learner.join(10)
    assert float(moved[0]) == pytest.approx(0.0015, abs=1e-6)
    assert float(np.abs(moved[1:]).max()) < 1e-6
