"""Connections cut at any byte of an upload or a download leave nothing behind, and what is resumed is only the rest."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from controller_api.transport import Uploads
from driver_cli.bench.counters import memory_kib
from services import messages as m
from services.errors import Unreachable
from services.rest import Client
from services.weights import wire
from tests.conftest import Process, Served, serve, until
from tests.controller_api.driving import seen
from tests.faults.figures import record
from tests.faults.proxy import Proxy

CUTS = 200 if os.environ.get("METIS_FAULTS") == "all" else 40
SIZE = 500_000  # float32 parameters: 2 MB
SLOTS = 2
HEADS = 4096  # bytes that heads of requests and answers may have in all
RUN: dict[str, Any] = {
    "min_learners": 2,
    "scaling_factor": "NumParticipants",
    "evaluation": {"every": 0},
    "termination": {"federation_rounds": 1},
}


def update(value: float) -> list[bytes]:
    """An update of one tensor full of `value`, as the client sends it."""
    tensors = wire.name_tensors([np.full(SIZE, value, np.float32)])
    return [b"".join(wire.encode(tensors, {}, {"num_training_examples": 1}))]


LENGTH = len(update(0.0)[0])
MEMORY = 2 * SLOTS * LENGTH  # bytes of uploads that are read, and of as many that wait for their rest


@dataclass
class Training:
    """A controller process whose two learners have their train tasks; `learners` call it directly."""

    served: Served
    folder: Path
    learners: list[Client]
    tasks: list[m.Task]

    def memory(self) -> int:
        """Bytes of memory that the controller has."""
        return memory_kib(self.served.process.child.pid)["VmRSS"] * 1024

    def descriptors(self) -> int:
        """Files and sockets that the controller holds."""
        return len(os.listdir(f"/proc/{self.served.process.child.pid}/fd"))

    def files(self) -> list[str]:
        """What is in the folder of the controller's models."""
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file() and "sqlite" not in path.name)

    def moved(self, index: int, proxy: Proxy) -> m.Task:
        """A learner's task with its addresses on the proxy."""
        task = self.tasks[index]
        assert task.model is not None
        model = task.model.model_copy(update={"url": task.model.url.replace(self.served.url, proxy.url)})
        result = m.ResultTarget(url=task.result.url.replace(self.served.url, proxy.url))
        return task.model_copy(update={"model": model, "result": result})

    @asynccontextmanager
    async def nothing_left(self) -> AsyncIterator[None]:
        """What happens inside leaves the state, the files, the descriptors and the slots as they were, and memory
        but for what unfinished uploads may have."""
        async with httpx.AsyncClient(base_url=self.served.url) as http:
            state = await seen(http)
        files = self.files()
        descriptors, memory = await steady(self.descriptors), self.memory()
        yield

        async def back() -> bool:
            return self.descriptors() <= descriptors

        await until(back)
        assert self.memory() - memory < MEMORY
        assert self.files() == files
        async with httpx.AsyncClient(base_url=self.served.url) as http:
            assert without_downloads(await seen(http)) == without_downloads(state)
        await self.take_all_slots()

    async def take_all_slots(self) -> None:
        """As many uploads as there are slots begin at once: each is told to go on."""
        writers = []
        for index, task in enumerate(self.tasks):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.served.port)
            lines = [
                f"PUT /v1/tasks/{task.id}/result HTTP/1.1",
                "Host: localhost",
                f"Content-Type: {wire.MEDIA_TYPE}",
                f"Authorization: Bearer {self.learners[index].token}",
                f"Content-Length: {LENGTH}",
                "Expect: 100-continue",
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            async with asyncio.timeout(10):
                assert (await reader.readline()).startswith(b"HTTP/1.1 100")
            writers.append(writer)
        for writer in writers:
            writer.transport.abort()

    async def taken(self, learner: str) -> None:
        """Wait until the controller has taken a learner's update."""
        async with Client(self.served.url) as operator:

            async def accepted() -> bool:
                tasks = (await operator.results()).tasks
                return any((one.kind, one.learner, one.state) == ("train", learner, "accepted") for one in tasks)

            await until(accepted)

    async def repeated(self, index: int, parts: list[bytes]) -> tuple[int, m.Receipt]:
        """Send a learner's whole update on a new connection: the status and the receipt."""
        headers = {"Authorization": f"Bearer {self.learners[index].token}", "Content-Type": wire.MEDIA_TYPE}
        async with httpx.AsyncClient() as http:
            answer = await http.put(self.tasks[index].result.url, content=b"".join(parts), headers=headers)
        return answer.status_code, m.Receipt.model_validate_json(answer.content)

    async def ends_with(self, mean: float) -> None:
        """The run ends by itself, with that model."""
        async with Client(self.served.url) as operator:

            async def over() -> bool:
                return (await operator.run()).state in m.TERMINAL

            await until(over)
            results = await operator.results()
            model = wire.decode(await operator.run_model()).arrays[0]
        assert (results.run.state, sorted(results.rounds[0].completed)) == ("completed", ["anna", "bert"])
        assert (model == mean).all()
        assert not [name for name in self.files() if name.endswith(".part")]


async def steady(count: Callable[[], int]) -> int:
    """A number that is the same for a tenth of a second."""
    async with asyncio.timeout(20):
        while True:
            before = count()
            await asyncio.sleep(0.1)
            if before == count():
                return before


def without_downloads(value: Any) -> Any:
    """The state without the bytes of models that were asked for."""
    if isinstance(value, dict):
        return {key: without_downloads(item) for key, item in value.items() if key not in ("down", "bytes_down")}
    return [without_downloads(item) for item in value] if isinstance(value, list) else value


@asynccontextmanager
async def training(start: Callable[..., Process], folder: Path) -> AsyncIterator[Training]:
    """See Training."""
    served = serve(start, folder, "--model-store", "OnDisk", METIS_UPLOAD_SLOTS=str(SLOTS))
    learners = [Client(served.url) for _ in range(2)]
    members = [await one.join(m.JoinRequest(name=name)) for one, name in zip(learners, ("anna", "bert"), strict=True)]
    await learners[0].start_run(RUN)
    for one, member in zip(learners, members, strict=True):
        one.token = member.token
    for one, member in zip(learners, members, strict=True):
        if task := await one.next_task(member.id, 0):
            assert task.kind == "init"
            await one.submit(task, wire.encode(wire.decode(update(0.0)[0]).tensors))
    tasks = [await one.next_task(member.id, 5) for one, member in zip(learners, members, strict=True)]
    yield Training(served, folder / "controller", learners, [task for task in tasks if task is not None])
    for one in learners:
        await one.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once."""
    monkeypatch.setattr("services.rest.backoff.FullJitter.seconds", lambda self, attempt: 0.01)


def offsets(seed: int, first: int = 0) -> list[int]:
    """Where to cut: the ends, and anywhere in between."""
    draw = random.Random(seed)
    return [first, first + 1, LENGTH - 1, *(draw.randrange(first, LENGTH) for _ in range(CUTS - 3))]


@pytest.mark.timeout(300)
async def test_a_cut_upload_leaves_nothing_behind(start: Callable[..., Process], tmp_path: Path) -> None:
    """Cut at random bytes, by an end or a reset: no file, descriptor, slot or state is left; the round then ends."""
    async with training(start, tmp_path) as there:
        async with there.nothing_left(), Proxy(there.served.port) as proxy:
            for number, at in enumerate(offsets(1)):
                proxy.up.cuts.append(at)
                proxy.resets = number % 2 == 1
                async with Client(proxy.url, there.learners[0].token, patience_s=0) as client:
                    with pytest.raises(Unreachable):
                        await client.submit(there.moved(0, proxy), update(777.0))
            assert len(proxy.up.passed) == CUTS
        for client, task, value in zip(there.learners, there.tasks, (1.0, 3.0), strict=True):
            await client.submit(task, update(value))
        await there.ends_with(2.0)
    record("upload cut at a random byte", CUTS, CUTS, 0, 0)


@pytest.mark.timeout(300)
async def test_a_cut_download_leaves_nothing_behind(start: Callable[..., Process], tmp_path: Path) -> None:
    """The same for downloads of the model."""
    async with training(start, tmp_path) as there:
        async with there.nothing_left(), Proxy(there.served.port) as proxy:
            for number, at in enumerate(offsets(2)):
                proxy.down.cuts.append(at)
                proxy.resets = number % 2 == 1
                reference = there.moved(0, proxy).model
                assert reference is not None
                async with Client(proxy.url, there.learners[0].token, patience_s=0) as client:
                    with pytest.raises(Unreachable):
                        await client.model(reference)
        for client, task, value in zip(there.learners, there.tasks, (1.0, 3.0), strict=True):
            await client.submit(task, update(value))
        await there.ends_with(2.0)
    record("download cut at a random byte", CUTS, CUTS, 0, 0)


@pytest.mark.usefixtures("soon")
@pytest.mark.timeout(300)
async def test_a_cut_transfer_is_resumed_and_no_byte_is_sent_twice(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    """Cut at random bytes on and on: the client ends with the whole, and sent or received it once, heads aside."""
    waits = []
    async with training(start, tmp_path) as there, Proxy(there.served.port) as proxy:
        draw, task = random.Random(3), there.moved(0, proxy)
        assert task.model is not None
        for at in offsets(3):
            proxy.down.cuts.append(at)
            before, began = sum(proxy.down.passed), time.monotonic()
            async with Client(proxy.url, there.learners[0].token, patience_s=60) as client:
                body = await client.model(task.model)
            waits.append(time.monotonic() - began)
            assert len(body) == task.model.size
            assert at < sum(proxy.down.passed) - before <= len(body) + HEADS
        while sum(proxy.up.cuts) < LENGTH * 3 // 4:
            proxy.up.cuts.append(draw.randrange(1000, LENGTH // CUTS * 2))
        cuts, before, began = len(proxy.up.cuts), sum(proxy.up.passed), time.monotonic()
        async with Client(proxy.url, there.learners[0].token, patience_s=60) as client:
            receipt = await client.submit(task, update(1.0))
        waits.append(time.monotonic() - began)
        assert receipt.size == LENGTH
        assert LENGTH < sum(proxy.up.passed) - before <= LENGTH + HEADS * cuts
        await there.learners[1].submit(there.tasks[1], update(3.0))
        await there.ends_with(2.0)
    record("transfer cut and resumed", CUTS + cuts, CUTS + cuts, 0, 0, max(waits))


@pytest.mark.usefixtures("soon")
async def test_a_lost_reply_costs_no_update(start: Callable[..., Process], tmp_path: Path) -> None:
    """The update is taken and its answer does not come, held up and then reset, or cut before its first byte: sent
    again it gets its receipt and nothing is taken twice."""
    async with training(start, tmp_path) as there, Proxy(there.served.port) as proxy:
        anna, bert = there.learners
        async with Client(proxy.url, anna.token, patience_s=60) as client:
            proxy.down.hold()
            upload = asyncio.create_task(client.submit(there.moved(0, proxy), update(1.0)))
            await there.taken("anna")
            assert not upload.done()
            proxy.forget()
            proxy.heal()
            first = await upload
        assert (first.learner, first.size) == ("anna", LENGTH)
        assert sum(proxy.up.passed) < LENGTH + HEADS
        assert await there.repeated(0, update(1.0)) == (200, first)
        proxy.down.cuts.append(0)
        async with Client(proxy.url, bert.token, patience_s=0) as client:
            with pytest.raises(Unreachable):
                await client.submit(there.moved(1, proxy), update(3.0))
        await there.taken("bert")
        status, receipt = await there.repeated(1, update(3.0))
        assert (status, receipt.learner, receipt.size) == (200, "bert", LENGTH)
        await there.ends_with(2.0)


@pytest.mark.usefixtures("soon")
async def test_a_slow_way_that_is_held_up_costs_time_only(start: Callable[..., Process], tmp_path: Path) -> None:
    """A slow, distant learner is partitioned in the midst of its upload, and its connection reset: it goes on there."""
    async with training(start, tmp_path) as there, Proxy(there.served.port) as proxy:
        proxy.latency_s, proxy.rate = 0.01, 10e6
        task, client = there.moved(0, proxy), Client(proxy.url, there.learners[0].token, patience_s=60)
        assert task.model is not None
        await client.model(task.model)
        upload = asyncio.create_task(client.submit(task, update(1.0)))

        async def midway() -> bool:
            return sum(proxy.up.passed) > LENGTH // 2

        await until(midway)
        proxy.hold()
        await there.learners[1].submit(there.tasks[1], update(3.0))
        assert not upload.done()
        proxy.forget()
        proxy.heal()
        proxy.latency_s, proxy.rate = 0.0, None
        assert (await upload).size == LENGTH
        await client.close()
        assert sum(proxy.up.passed) < LENGTH * 3 // 2
        await there.ends_with(2.0)


def test_an_upload_that_is_under_way_makes_no_room_for_others() -> None:
    """Of two uploads the one that is read is kept, though it is older than the one that was cut."""
    uploads = Uploads(2)
    reading, cut = uploads.begin("reading", "anna", 10), uploads.begin("cut", "ben", 10)
    with reading.dealt_with():
        other = uploads.begin("other", "eve", 10)
        assert (uploads.find("reading"), uploads.find("cut"), uploads.find("other")) == (reading, None, other)
    assert not cut.read
