"""What a process has used, as Linux tells it: CPU time, and memory by kind. None where the system does not tell."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.02  # how often memory is looked at
KIB_PER_MB = 1e6 / 1024
CPUCLOCK_SCHED = 2  # see clock_getcpuclockid(3): the clock of a process is made of its id


def cpu_s(pid: int) -> float | None:
    """CPU seconds of all threads of a process, living and ended, to the nanosecond."""
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return None


def memory_kib(pid: int) -> dict[str, int]:
    """The lines of /proc/PID/status that count memory, in KiB; empty where there are none."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    fields = (line.split() for line in text.splitlines())
    return {field[0].rstrip(":"): int(field[1]) for field in fields if field[2:] == ["kB"]}


def free_bytes() -> int | None:
    """Memory that a new process could have."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


@dataclass
class Peaks:
    """The most memory that a process had while `watch()` ran, in KiB."""

    pid: int
    anonymous: int = 0  # its own: heap, stacks, slots
    shared: int = 0  # files in memory, such as the models that `InMemory` serves
    resident: int = 0  # with the pages of mapped files; a high-water mark of the kernel

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(SAMPLE_S)

    def look(self) -> None:
        """Look once."""
        now = memory_kib(self.pid)
        self.anonymous = max(self.anonymous, now.get("RssAnon", 0))
        self.shared = max(self.shared, now.get("RssShmem", 0))
        self.resident = max(self.resident, now.get("VmHWM", 0))


def megabytes(kib: int) -> float | None:
    """KiB as MB (millions of bytes); None for what was never told."""
    return round(kib / KIB_PER_MB, 1) if kib else None
