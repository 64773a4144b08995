"""Weights documents made to cost the controller more than their sender: refused by a real process that others use."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.attacks.documents import groups, tiny
from tests.conftest import Process, Served, serve
from tests.controller_api.driving import MSGPACK, Member, begin, document, tensor, weights

MB = 1_000_000
REFUSED = (413, 422, 0)  # 0: the connection was closed while curl was still sending
STALL_S = 1.0  # nobody waits so long for an answer of a few bytes, on a machine that does other work too


ATTACKS: dict[str, Callable[[], bytes]] = {
    "64 groups of 100,000 tensors, cut": lambda: groups(
        [tensor(one, str(i)) for i, one in enumerate(weights(1.0))], 64, 100_000
    ),
    "100,000 tensors": lambda: document(*tiny(100_000)),
    "10,000 tensors of 32 dimensions": lambda: document(*tiny(10_000, 32)),
    "metadata of 10 MB": lambda: document(
        *weights(1.0), metadata={str(i): "x" * 9_999 for i in range(1000)} | {"": ""}
    ),
    "60,000 entries of metadata": lambda: document(*weights(1.0), metadata={str(i): i for i in range(60_000)}),
}


@contextmanager
def probing(served: Served) -> Iterator[list[float]]:
    """Ask for /healthz without pause from a thread; seconds that each answer took."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
        while not over.is_set():
            start = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            took.append(time.perf_counter() - start)
            time.sleep(0.002)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join(150)


def resident(served: Served) -> float:
    """Highest resident memory of the controller so far, MB."""
    status = Path(f"/proc/{served.process.child.pid}/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1000


async def sent(member: Member, task: dict[str, Any], url: str, file: Path) -> int:
    """The status of the answer to an upload of that file, sent by a process of its own."""
    told = ("-H", f"Authorization: Bearer {member.token}", "-H", f"Content-Type: {MSGPACK}", "-H", "Expect:")
    where = f"{url}/v1/tasks/{task['id']}/result"
    command = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "--data-binary", f"@{file}", *told)
    curl = await asyncio.create_subprocess_exec(*command, where, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(curl.communicate(), 180)
    return int(out)


@pytest.mark.skipif(shutil.which("curl") is None, reason="sends by curl")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_refused_update_stalls_nobody(start: Callable[..., Process], tmp_path: Path, attack: str) -> None:
    """413 or 422; meanwhile the others are answered, and the controller takes less memory than twice the body."""
    served = serve(start, tmp_path)
    body = tmp_path / "body"
    size = body.write_bytes(ATTACKS[attack]())
    async with httpx.AsyncClient(base_url=served.url, timeout=60, trust_env=False) as http_client:
        eve, anna = await begin(http_client, "eve", "anna")
        task, before = await eve.task(), resident(served)
        with probing(served) as took:
            assert await sent(eve, task, served.url, body) in REFUSED
        assert max(took) < STALL_S
        assert resident(served) - before < 2 * size / MB + 16
        assert (await anna.put(await anna.task(), document(*weights(1.0)))).status_code == 201
