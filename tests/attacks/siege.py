"""An honest federation under attack: the controller has a core to itself, everybody else the other one, and attackers
come last there. What is compared is the same federation beside the same attackers aimed at a dummy."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np

from tests.conftest import Process, free_port

from .attackers import ATTACKS, HOST, Attack
from .honest import LEARNERS

CONTROLLER_CORE, OTHER_CORE = 0, 1
BESIDE_DUMMY_S = 25.0
MEASURED_S = (35.0, 65.0)  # of an attack: from when to when rounds and growth are measured
LOOKS_S = 5.0  # of which memory is the median
NOBODY = "nobody"


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What is started meanwhile runs there and nowhere else."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Size:
    """Of a controller: bytes of memory and of its folder."""

    memory: int
    folder: int


@dataclass(frozen=True)
class Outcome:
    """What an attack came to."""

    attack: str
    rounds: int  # that began while it was measured
    round_s: float  # mean of these
    beside_dummy_s: float  # mean, while the same attackers were busy elsewhere
    longest_s: float  # of any round since the attack began
    lost: list[str]  # honest learners that were
    others: list[str]  # learners without whose update an honest round was closed, or with
    intact: bool  # the model is that of the honest learners
    early: Size
    late: Size


class Siege:
    """One federation and one attack."""

    def __init__(self, folder: Path, attack: str) -> None:
        self._folder = folder
        self._name = attack
        self._attack = ATTACKS.get(attack, Attack(lambda port: None))
        self._port, self._dummy_port = free_port(), free_port()
        self._http = httpx.Client(base_url=f"http://{HOST}:{self._port}", timeout=60, trust_env=False)
        self._running: list[Process] = []

    def outcome(self) -> Outcome:
        """Let it happen; a minute and a half."""
        try:
            return self._happen()
        finally:
            for one in reversed(self._running):
                one.kill()
                one.wait(20)
            self._http.close()

    def _happen(self) -> Outcome:
        with on_core(CONTROLLER_CORE):
            where = ("--host", HOST, "--port", str(self._port), "--data-dir", str(self._folder / "data"))
            controller = self._start("controller", "controller_api", *where, "--log-format", "text")
        self._until_healthy(controller)
        with on_core(OTHER_CORE):
            self._start("honest", "tests.attacks.honest", f"http://{HOST}:{self._port}")
            self._start("dummy", "tests.attacks.dummy", str(self._dummy_port))
            started = self._http.post("/v1/runs", json=self._config())
            assert started.status_code == 201, started.text
            elsewhere = self._attackers(self._dummy_port)
            time.sleep(BESIDE_DUMMY_S)
            if elsewhere:
                elsewhere.kill()
                elsewhere.wait()
            before, began = self._rounds(), time.monotonic()
            self._attackers(self._port)
            sizes, counts = [], []
            for seconds in MEASURED_S:
                time.sleep(began + seconds - LOOKS_S - time.monotonic())
                sizes.append(self._size(controller))
                counts.append(len(self._rounds()))
            closed = self._rounds()
        attacked, measured = closed[len(before) :], closed[counts[0] + 1 : counts[1]]
        assert measured, f"no round closed during the attack: {self._http.get('/v1/runs/current').text}"
        return Outcome(
            self._name,
            len(measured),
            statistics.mean(map(_seconds, measured)),
            statistics.mean(map(_seconds, before[1:])),
            max(map(_seconds, attacked)),
            self._lost(),
            sorted({name for one in attacked for name in self._honest ^ self._counted(one)}),
            self._intact(closed[-1]),
            *sizes,
        )

    @property
    def _honest(self) -> set[str]:
        return {f"honest-{number}" for number in range(LEARNERS)}

    def _counted(self, one: dict[str, Any]) -> set[str]:
        return {name for name in one["completed"] if not (self._attack.takes_part and name.startswith("mallory"))}

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "min_learners": LEARNERS,
            "schedule": {"min_updates": LEARNERS, "lease_s": 10},
            "termination": {"federation_rounds": 1_000_000},
        }
        if self._attack.learners and not self._attack.takes_part:  # its learners are drawn too, and not waited for
            everybody = LEARNERS + self._attack.learners
            share, more = LEARNERS / everybody, self._attack.learners / LEARNERS
            config["selection"] = {"participation_ratio": share, "over_selection": more}
        return config

    def _start(self, name: str, module: str, *arguments: str) -> Process:
        root = str(Path(__file__).parents[2])
        child = Process(self._folder / f"{name}.log", "-m", module, *arguments, cwd=self._folder, PYTHONPATH=root)
        self._running.append(child)
        return child

    def _attackers(self, port: int) -> Process | None:
        if self._name == NOBODY:
            return None
        return self._start("attackers", "tests.attacks.attackers", self._name, str(port))

    def _until_healthy(self, controller: Process) -> None:
        for _ in range(300):
            try:
                self._http.get("/healthz")
            except httpx.HTTPError:
                assert controller.child.poll() is None, controller.tail()
                time.sleep(0.1)
            else:
                return
        raise AssertionError(controller.tail())

    def _rounds(self) -> list[dict[str, Any]]:
        answer = self._http.get("/v1/runs/current/rounds")
        return [one for one in answer.json() if one["state"] == "closed"]

    def _size(self, controller: Process) -> Size:
        """Takes LOOKS_S: memory goes up and down with each round."""
        resident, until = [], time.monotonic() + LOOKS_S
        while time.monotonic() < until:
            status = Path(f"/proc/{controller.child.pid}/status").read_text()
            resident.append(int(status.partition("VmRSS:")[2].split()[0]) * 1024)
            time.sleep(0.05)
        files = subprocess.run(["du", "-sb", self._folder / "data"], capture_output=True, text=True, check=False)
        return Size(round(statistics.median(resident)), int(files.stdout.split()[0]))

    def _lost(self) -> list[str]:
        log = (self._folder / "controller.log").read_text(errors="replace")
        return sorted(name for name in self._honest if f"{name} is lost" in log or f"{name} left" in log)

    def _intact(self, one: dict[str, Any]) -> bool:
        body = self._http.get(f"/v1/models/{one['model']}").content
        values = [np.frombuffer(tensor["data"], tensor["dtype"]) for tensor in msgpack.unpackb(body)["tensors"]]
        return all(bool((part == one["round"]).all()) for part in values)


def _seconds(one: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(one[key]) for key in ("started_at", "completed_at"))
    return (ended - began).total_seconds()


if __name__ == "__main__":
    import tempfile

    for attack in sys.argv[1:] or ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            print(Siege(Path(folder), attack).outcome(), flush=True)
