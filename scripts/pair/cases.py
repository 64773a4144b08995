"""What `metis bench` is asked to measure, and the numbers that are read from what it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A number in what `metis bench --out` writes: less is better."""

    name: str
    place: tuple[str | int, ...]

    def read(self, report: Any) -> float | None:
        """The number; None where the report has none, because another version writes another one."""
        for step in self.place:
            try:
                report = report[step]
            except (KeyError, IndexError, TypeError):
                return None
        return float(report) if isinstance(report, int | float) and report > 0 else None


ROUND = (
    Measure("controller, CPU s a round", ("cases", 0, "cpu_s", "server")),
    Measure("wall, ms a round", ("cases", 0, "timings_ms", "federation_round", "median")),
)
IDLE = (
    Measure("controller, CPU s while they enrol", ("idle", "enrol_cpu_s")),
    Measure("controller, % of a core", ("idle", "cpu_percent")),
    Measure("memory added, MB", ("idle", "added_mb")),
    Measure("wall, ms to the last of the tasks", ("idle", "last_task_ms", "median")),
)


@dataclass(frozen=True)
class Case:
    """One call of `metis bench`."""

    name: str
    options: tuple[str, ...]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is read from it."""
        return IDLE if "--idle" in self.options else ROUND


def rounds(params: str, learners: int, count: int, *more: str) -> Case:
    """Rounds of the stress test."""
    options = ("--params", params, "--learners", str(learners), "--rounds", str(count), "--no-floor")
    return Case(" ".join([params, "x", str(learners), *more[1:2]]), (*options, *more))


PARTS: dict[str, tuple[Case, ...]] = {
    "small": (rounds("100k", 3, 100), rounds("100k", 10, 100)),
    "medium": (rounds("1M", 10, 40),),
    "large": (rounds("10M", 10, 10),),
    "disk": (rounds("10M", 10, 10, "--model-store", "OnDisk", "--slots", "4"),),
    "idle": (Case("5,000 waiting", ("--idle", "5000", "--idle-seconds", "10")),),
}
DEFAULT_PARTS = ("small", "medium", "large")
