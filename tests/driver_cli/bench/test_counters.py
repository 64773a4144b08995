"""What a process has used."""

from __future__ import annotations

import os
import sys
import time

import pytest

from driver_cli.bench import counters

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@linux
def test_counters_of_a_process() -> None:
    """CPU time is that of the process's own clock; memory has the anonymous part; of no process nothing is known."""
    told, own = counters.cpu_s(os.getpid()), time.process_time()
    assert told == pytest.approx(own, abs=0.05)
    assert counters.memory_kib(os.getpid())["RssAnon"] > 1000
    nobody = 2**22 + 1  # above the highest process id
    assert counters.cpu_s(nobody) is None
    assert counters.memory_kib(nobody) == {}
