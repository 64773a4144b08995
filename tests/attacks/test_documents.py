"""Any document that is no update is refused at the price of an update, and nobody waits for it."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.attacks.documents import Generator, tensors_of, update
from tests.conftest import Process, Served, serve

MB = 1_000_000
IN_FULL = os.environ.get("METIS_ATTACKS") == "all"
SIZES = [1_000, 100_000, 4 * MB, 50 * MB] if IN_FULL else [1_000, 300_000]
MORE_S, TIMES = (0.05, 2) if IN_FULL else (1.0, 20)  # beyond a valid update; other tests run beside this one
STALL_S = 0.05 if IN_FULL else 1.0
OWN = 8 * MB  # memory that the controller takes for other things meanwhile
REFUSED = (413, 422)
MSGPACK = "application/vnd.msgpack"


class Sender:
    """A learner that sends results by hand."""

    def __init__(self, served: Served, name: str) -> None:
        self._served = served
        self._http = httpx.Client(base_url=served.url, timeout=120, trust_env=False)
        self._me = self._http.post("/v1/learners", json={"name": name}).json()
        self._told = {"Authorization": f"Bearer {self._me['token']}"}

    def task(self) -> dict[str, Any]:
        """Its task."""
        answer = self._http.get(f"/v1/learners/{self._me['id']}/task", params={"wait": 10}, headers=self._told)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def waiting(self) -> bool:
        """Whether there is a task for it now."""
        path = f"/v1/learners/{self._me['id']}/task"
        return self._http.get(path, headers=self._told).status_code == 200

    def put(self, task: dict[str, Any], body: bytes) -> tuple[int, float]:
        """Status of the answer, and the seconds until it was there. 0: the connection was closed before."""
        connection = http.client.HTTPConnection("127.0.0.1", self._served.port, timeout=120)
        start = time.perf_counter()
        try:
            connection.request("PUT", f"/v1/tasks/{task['id']}/result", body, self._told | {"Content-Type": MSGPACK})
            status = connection.getresponse().status
        except (BrokenPipeError, ConnectionResetError):  # refused while it was being sent
            status = REFUSED[0]
        finally:
            connection.close()
        return status, time.perf_counter() - start


def highest(served: Served) -> int:
    """Resident memory of the controller, in bytes, the highest since this was asked last."""
    process = Path(f"/proc/{served.process.child.pid}")
    found = int((process / "status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    (process / "clear_refs").write_text("5")
    return found


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("size", SIZES)
def test_what_is_no_update_is_refused_at_the_price_of_one(
    start: Callable[..., Process], tmp_path: Path, size: int
) -> None:
    """At most 50 ms and twice the time of a valid update of as many bytes, in memory below twice the body; a probe
    beside it never waits 50 ms. (Beside other tests: what is seen on a busy machine.)"""
    served = serve(start, tmp_path)
    shapes = {f"layer-{number}": (size // 40,) for number in range(10)}
    anna, eve = (Sender(served, name) for name in ("anna", "eve"))
    rounds = {"termination": {"federation_rounds": 1}, "min_learners": 2}
    httpx.post(f"{served.url}/v1/runs", json=rounds, trust_env=False).raise_for_status()
    asked = next(one for one in (anna, eve) if one.waiting())
    assert asked.put(asked.task(), update(tensors_of(shapes)))[0] == 201
    status, valid_s = anna.put(anna.task(), update(tensors_of(shapes, 1.0)))
    assert status == 201
    task = eve.task()
    probe = start("probe", "-m", "tests.attacks.probe", str(served.port), PYTHONPATH=str(Path(__file__).parents[2]))
    time.sleep(0.5)
    wrong = []
    for seed in range(1 if size == max(SIZES) else 5 if IN_FULL else 2):
        for kind, body in Generator(shapes, size, seed):
            before = highest(served)
            began = time.monotonic()
            status, took = eve.put(task, body)
            took_bytes = highest(served) - before
            stalls = [one for one in stalls_of(probe) if one[0] + one[1] > began]
            longest = max((one[1] for one in stalls), default=0.0)
            seen = f"{kind}, seed {seed}, {len(body)} bytes: {status}, {took:.3f} s (valid: {valid_s:.3f} s),"
            seen += f" {took_bytes / MB:.1f} MB, stall {longest:.3f} s"
            limits = (MORE_S + TIMES * valid_s, 2 * len(body) + OWN, STALL_S)
            if status not in REFUSED or took > limits[0] or took_bytes > limits[1] or longest > limits[2]:
                wrong.append(seen)
    assert not wrong, "\n".join(wrong)
    assert eve.put(task, update(tensors_of(shapes, 2.0)))[0] == 201


def stalls_of(probe: Process) -> list[tuple[float, float]]:
    """When each began, and how long it lasted."""
    assert probe.child.poll() is None, probe.tail()
    lines = [line.split() for line in probe.log.read_text().splitlines()]
    return [(float(line[0]), float(line[1])) for line in lines if len(line) == 2]
