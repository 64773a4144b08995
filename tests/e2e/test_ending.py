"""SIGTERM to a controller: no new tasks, running uploads end, exit status 0; a second signal ends it at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import Process, Served, free_port, serve, until
from tests.controller_api.driving import MSGPACK, Member, document, join, model

SMALL, LARGE = 12, 1 << 19  # values of a model: one whose updates are read in a moment, one that is read by a sink
PAUSE_S = 1.2  # between the halves of an upload
RUN: dict[str, Any] = {"min_learners": 2, "termination": {"federation_rounds": 3}, "scaling_factor": "NumParticipants"}


@asynccontextmanager
async def training(served: Served, size: int) -> AsyncIterator[tuple[Member, Member, dict[str, Any]]]:
    """A learner with the task of round 1, that task, and another learner that has not asked for its own."""
    async with httpx.AsyncClient(base_url=served.url, timeout=30) as http:
        anna, bert = [await join(http, name) for name in ("anna", "bert")]
        assert (await http.post("/v1/runs", json=RUN)).status_code == 201
        (asked,) = [one for one in (anna, bert) if (await one.call("GET", f"{one.path}/task")).status_code == 200]
        assert (await asked.put(await asked.task(), model(np.zeros(size, "<f4")))).status_code == 201
        yield anna, bert, await anna.task()


class Upload:
    """An update whose second half is sent when the test says so."""

    def __init__(self, member: Member, task: dict[str, Any], body: bytes) -> None:
        self._body = body
        fields = {"Host": "localhost", "Authorization": f"Bearer {member.token}", "Content-Type": MSGPACK}
        fields["Content-Length"] = str(len(body))
        lines = [f"PUT /v1/tasks/{task['id']}/result HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
        self._head = "\r\n".join([*lines, "", ""]).encode()

    async def begin(self, port: int) -> None:
        """Send the first half."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(self._head + self._body[: len(self._body) // 2])
        await self._writer.drain()

    async def end(self) -> int:
        """Send the rest; the status of the answer."""
        self._writer.write(self._body[len(self._body) // 2 :])
        await self._writer.drain()
        answer = await self._reader.read()
        self._writer.close()
        return int(answer.split()[1])


async def closed(port: int) -> bool:
    """Whether nobody listens any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_running_upload_is_taken_and_no_task_is_given(
    start: Callable[..., Process], tmp_path: Path, size: int
) -> None:
    """What is half here when the signal comes gets its 201; a poll that waits is answered with nothing at once, a new
    one is refused; the status is 0. Started again, the controller has that update."""
    served = serve(start, tmp_path, "--model-store", "OnDisk")
    async with training(served, size) as (anna, bert, task):
        await bert.put(await bert.task(), document(np.ones(size, "<f4")))
        upload = Upload(anna, task, document(np.ones(size, "<f4")))
        await upload.begin(served.port)
        poll = asyncio.create_task(bert.call("GET", f"{bert.path}/task", params={"wait": 30}))
        await asyncio.sleep(0.2)  # until the poll waits
        served.process.kill(signal.SIGTERM)
        async with asyncio.timeout(1):
            assert (await poll).status_code == 204

        async def ending() -> bool:
            return await closed(served.port)

        await until(ending, 2)
        with pytest.raises(httpx.ConnectError):
            await bert.call("GET", f"{bert.path}/task")
        await asyncio.sleep(PAUSE_S)
        assert served.process.child.poll() is None
        assert await upload.end() == 201
    assert served.process.wait(5) == 0, served.process.tail()
    assert "Traceback" not in served.process.tail()
    again = await asyncio.to_thread(serve, start, tmp_path, "--model-store", "OnDisk")
    async with httpx.AsyncClient() as http:
        (first,) = (await http.get(f"{again.url}/v1/runs/latest/rounds")).json()
    assert (first["completed"], first["failed"]) == (["anna", "bert"], {})


async def test_an_upload_that_does_not_end_is_not_waited_for_beyond_the_grace(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    """Its connection is closed, and the status is 0 all the same."""
    port = free_port()
    code = "from controller_api import server; server.GRACE_S = 1; from controller_api.__main__ import main; main()"
    flags = ("--port", str(port), "--data-dir", str(tmp_path / "controller"), "--model-store", "InMemory")
    served = Served(start("controller", "-c", code, *flags), f"http://127.0.0.1:{port}", port)

    async def listens() -> bool:
        return not await closed(port)

    await until(listens)
    async with training(served, LARGE) as (anna, _, task):
        upload = Upload(anna, task, document(np.ones(LARGE, "<f4")))
        await upload.begin(served.port)
        served.process.kill(signal.SIGTERM)
        assert await asyncio.to_thread(served.process.wait, 10) == 0, served.process.tail()
        assert "connections are cut" in served.process.tail()
        assert "Traceback" not in served.process.tail()


async def test_a_second_signal_ends_it_at_once(start: Callable[..., Process], tmp_path: Path) -> None:
    """Whatever is under way; one that is sent twice at the same time is one."""
    served = serve(start, tmp_path, "--model-store", "InMemory")
    async with training(served, LARGE) as (anna, _, task):
        upload = Upload(anna, task, document(np.ones(LARGE, "<f4")))
        await upload.begin(served.port)
        served.process.kill(signal.SIGTERM)
        served.process.kill(signal.SIGTERM)

        async def ending() -> bool:
            return await closed(served.port)

        await until(ending, 2)
        await asyncio.sleep(0.2)
        assert served.process.child.poll() is None
        served.process.kill(signal.SIGTERM)
        assert await asyncio.to_thread(served.process.wait, 2) == 128 + signal.SIGTERM
