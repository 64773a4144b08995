"""What the bench measured, as it is saved, read back and shown. Times in milliseconds or seconds as the names say."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from services.errors import InvalidConfig

from .. import files
from . import counters
from .machine import Machine


class Measurement(BaseModel):
    """Base of what is saved."""

    model_config = ConfigDict(frozen=True)


class Spread(Measurement):
    """Several measurements of one thing."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value."""
        shown = [round(value, 6) for value in values]
        return cls(median=round(statistics.median(shown), 6), min=min(shown), max=max(shown))


class Cpu(Measurement):
    """CPU seconds of the two sides; None where the system does not tell them of another process."""

    server: float | None
    learners: float | None

    @classmethod
    def of(cls, server_pid: int, *learners_pids: int) -> Self:
        """What these processes have used until now."""
        spent = [counters.cpu_s(pid) for pid in learners_pids]
        known = [seconds for seconds in spent if seconds is not None]
        return cls(server=counters.cpu_s(server_pid), learners=sum(known) if len(known) == len(spent) else None)

    def until(self, later: Self) -> Self:
        """What was used from here to `later`."""

        def spent(before: float | None, after: float | None) -> float | None:
            return None if before is None or after is None else after - before

        return type(self)(server=spent(self.server, later.server), learners=spent(self.learners, later.learners))

    @classmethod
    def mean(cls, several: Sequence[Self]) -> Self:
        """Of at least one."""

        def of(values: list[float | None]) -> float | None:
            known = [value for value in values if value is not None]
            return round(statistics.fmean(known), 6) if len(known) == len(values) else None

        return cls(server=of([one.server for one in several]), learners=of([one.learners for one in several]))


class Memory(Measurement):
    """The most memory that the controller had, in MB (millions of bytes)."""

    anonymous_mb: float | None  # its own: heap, stacks, upload slots
    shared_mb: float | None  # models in memory that are served as files, as far as they are mapped
    resident_mb: float | None  # both, and the pages of mapped files


class Floor(Measurement):
    """The same transfers by bare sockets."""

    round_s: Spread
    rounds_s: list[float]
    cpu_s: Cpu  # a round
    bytes: int  # a round, both ways


class Case(Measurement):
    """One model size with one number of learners."""

    size: str
    params: int
    learners: int
    model_store: str
    slots: int | None  # None: the controller's default
    rounds: int  # that count
    timings_ms: dict[str, Spread]
    rounds_ms: dict[str, list[float]]
    cpu_s: Cpu  # a round
    memory: Memory
    bytes_down: int  # a round
    bytes_up: int
    floor: Floor | None
    load: tuple[float, float]  # average over a minute, before and after

    @property
    def round_s(self) -> float:
        """Median of the federation round, in seconds."""
        return self.timings_ms["federation_round"].median / 1000

    @property
    def ratio(self) -> float | None:
        """Federation round to floor, by their medians."""
        return self.round_s / self.floor.round_s.median if self.floor else None

    @property
    def cpu_ratio(self) -> float | None:
        """CPU time of the controller to that of the floor's server."""
        if self.floor is None or not self.cpu_s.server or not self.floor.cpu_s.server:
            return None
        return self.cpu_s.server / self.floor.cpu_s.server


class Idle(Measurement):
    """Learners that wait for a task."""

    polls: int
    wait_s: float  # that each poll asks for
    enrol_s: float  # from the first enrolment to the last poll
    enrol_cpu_s: float | None  # of the controller
    added_mb: float | None  # anonymous memory of the controller: enrolled and waiting, less before
    added_kib_per_poll: float | None
    watched_s: float
    ended_polls: int  # that came to their end meanwhile and were made again
    cpu_percent: float | None  # of one core, over the whole time
    cpu_percent_quiet: float | None  # median of the seconds
    woken: int  # how many get a task in the runs that follow
    runs: int
    last_task_ms: Spread  # from the answer to POST /v1/runs to the last task's answer
    last_task_after_post_ms: Spread  # the same from when the POST was sent
    load: tuple[float, float]


class Durability(Measurement):
    """Rounds of federations that differ in their model store alone; the first store keeps nothing."""

    params: int
    learners: int
    rounds: int  # of each, that count
    rounds_ms: dict[str, list[float]]  # federation rounds by store
    load: tuple[float, float]

    def ratio(self, store: str) -> float:
        """Round with this store to round with the first, by their medians."""
        first = next(iter(self.rounds_ms.values()))
        return statistics.median(self.rounds_ms[store]) / statistics.median(first)


class BenchReport(Measurement):
    """All that one call of `metis bench` measured."""

    machine: Machine
    cases: list[Case] = []
    idle: Idle | None = None
    durability: list[Durability] = []

    def save(self, file: Path) -> None:
        """Write it as JSON, whole or not at all."""
        files.write(file, self.as_json().encode())

    def as_json(self) -> str:
        """With the ratios, which are derived."""
        document = self.model_dump(mode="json")
        for shown, case in zip(document["cases"], self.cases, strict=True):
            shown["ratio"] = None if case.ratio is None else round(case.ratio, 3)
            shown["cpu_ratio"] = None if case.cpu_ratio is None else round(case.cpu_ratio, 3)
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def load(cls, file: Path) -> Self:
        """One that was saved; raises InvalidConfig."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except OSError as error:
            raise InvalidConfig(f"{file}: {error.strerror}", file=str(file)) from error
        except ValidationError as error:
            raise InvalidConfig(f"{file} is not what `metis bench --out` writes", file=str(file)) from error
