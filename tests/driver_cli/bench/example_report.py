"""A report of the bench with known numbers."""

from __future__ import annotations

from driver_cli.bench.machine import Machine
from driver_cli.bench.measurements import BenchReport, Case, Cpu, Floor, Idle, Memory, Spread

TIMINGS = (
    "train_dispatch",
    "train_round",
    "aggregation",
    "evaluation_dispatch",
    "evaluation_round",
    "federation_round",
)


def machine() -> Machine:
    """One that nobody has."""
    return Machine(
        at="2026-01-01T00:00:00+00:00",
        cpus=2,
        model="Abacus",
        system="Linux",
        memory_gb=8.0,
        python="3.11.0",
        versions={"numpy": "2.0"},
        load_before=[0.5, 0.4, 0.3],
        load_after=[1.5, 0.5, 0.3],
    )


def case(learners: int, round_ms: float, floor_ms: float) -> Case:
    """A case whose timings are all the same."""
    spread = Spread.of([round_ms, round_ms, 2 * round_ms])
    return Case(
        size="1M",
        params=1_011_501,
        learners=learners,
        model_store="InMemory",
        slots=None,
        rounds=3,
        timings_ms={name: spread for name in TIMINGS},
        rounds_ms={name: [round_ms, round_ms, 2 * round_ms] for name in TIMINGS},
        cpu_s=Cpu(server=0.3, learners=None),
        memory=Memory(anonymous_mb=80.4, shared_mb=None, resident_mb=120.0),
        bytes_down=40_500_000,
        bytes_up=40_600_000,
        floor=Floor(
            round_s=Spread.of([floor_ms / 1000]),
            rounds_s=[floor_ms / 1000],
            cpu_s=Cpu(server=0.2, learners=0.1),
            bytes=121_000_000,
        ),
        load=(0.5, 1.0),
    )


IDLE = Idle(
    polls=5000,
    wait_s=60.0,
    enrol_s=10.0,
    enrol_cpu_s=4.0,
    added_mb=61.0,
    added_kib_per_poll=11.9,
    watched_s=60.0,
    ended_polls=5000,
    cpu_percent=0.9,
    cpu_percent_quiet=0.12,
    woken=1000,
    runs=5,
    last_task_ms=Spread.of([80.0, 90.0, 130.0]),
    last_task_after_post_ms=Spread.of([100.0, 110.0, 150.0]),
    load=(0.1, 0.2),
)


def report() -> BenchReport:
    """500 ms to 200 of the floor are 2.5; 0.3 CPU seconds to 0.2 are 1.5."""
    return BenchReport(machine=machine(), cases=[case(25, 1200.0, 400.0), case(10, 500.0, 200.0)], idle=IDLE)
