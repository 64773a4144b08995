"""The machine that a measurement ran on, and how busy it was."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

import services

T = TypeVar("T")
PACKAGES = ("numpy", "uvicorn", "uvloop", "httptools", "httpx", "pydantic")


class Machine(BaseModel):
    """What there was before the first and after the last measurement."""

    model_config = ConfigDict(frozen=True)

    at: str
    cpus: int  # that this process may use
    model: str
    system: str
    memory_gb: float | None
    python: str
    versions: dict[str, str]
    load_before: list[float]  # over 1, 5 and 15 minutes
    load_after: list[float]


def describe(load_before: list[float]) -> Machine:
    """This machine, now; `load_before` is what `load()` gave when the measurement began."""
    installed = {"metisfl-rest": services.__version__}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Machine(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        model=_from("/proc/cpuinfo", "model name", str) or platform.processor() or platform.machine(),
        system=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        memory_gb=_from("/proc/meminfo", "MemTotal", lambda text: round(int(text.split()[0]) * 1024 / 1e9, 1)),
        python=platform.python_version(),
        versions=installed,
        load_before=load_before,
        load_after=load(),
    )


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _from(path: str, name: str, read: Callable[[str], T]) -> T | None:
    """The value of the first line of a file of `name: value` lines."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((read(line.partition(":")[2].strip()) for line in lines if line.startswith(name)), None)
