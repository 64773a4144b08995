"""Uploads that are cut go on where they ended, over both protocols of the server."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from controller_api.clock import TICK_S, Clock
from controller_api.transport.uploads import KEPT_S, Uploads
from services import messages as m
from services.errors import InvalidUpdate
from services.rest import Client
from services.weights import wire
from tests.conftest import until
from tests.controller_api.transport.test_protocol import PATHS, Raw, document, put, serving, training


def patch(task: str, body: bytes, offset: int, *extra: str, complete: str = "?1") -> bytes:
    """A part of an upload."""
    lines = [
        f"PATCH /v1/tasks/{task}/result HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/partial-upload",
        f"Content-Length: {len(body)}",
        f"Upload-Offset: {offset}",
        f"Upload-Complete: {complete}",
    ]
    return "\r\n".join([*lines, *extra, "", ""]).encode() + body


async def offset_of(raw: Raw, task: str) -> tuple[int, dict[str, str]]:
    """What HEAD says of an upload: its offset, and all headers."""
    await raw.send(f"HEAD /v1/tasks/{task}/result HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    status, headers, _ = await raw.answer("HEAD")
    assert status == 204
    return int(headers["upload-offset"]), headers


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_a_cut_upload_goes_on_where_it_ended(zero_copy: bool) -> None:
    """HEAD says how much came, PATCH sends the rest, the receipt is that of a whole upload."""
    async with serving(zero_copy) as server:
        client, me, task = await training(server)
        body = document(0.25)
        cut = await Raw.open(server)
        await cut.send(put(task, body)[0] + body[:700_000])
        raw = await Raw.open(server)

        async def came() -> bool:
            return (await offset_of(raw, task))[0] > 0

        cut.writer.close()
        await until(came)
        have, headers = await offset_of(raw, task)
        assert (headers["upload-complete"], headers["upload-length"]) == ("?0", str(len(body)))
        assert have <= 700_000
        await raw.send(patch(task, body[have:], have))
        status, headers, _ = await raw.answer()
        assert (status, headers["upload-complete"]) == (201, "?1")
        assert (await offset_of(raw, task))[0] == len(body)
        await raw.send(patch(task, b"", len(body)))
        assert (await raw.answer())[0] == 200
        offered = await client.next_task(me, 10)
        assert offered is not None
        assert offered.model is not None
        assert (wire.decode(await client.model(offered.model)).arrays[0] == 0.25).all()
        await client.close()


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_an_upload_in_parts_from_the_start(zero_copy: bool) -> None:
    """Parts with ?0 and the last with ?1; a wrong offset is 409 and names the right one; DELETE begins anew."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        body, raw = document(), await Raw.open(server)
        await raw.send(patch(task, body[:400_000], 0, f"Upload-Length: {len(body)}", complete="?0"))
        status, headers, _ = await raw.answer()
        assert (status, headers["upload-offset"]) == (204, "400000")
        await raw.send(patch(task, body[300_000:], 300_000))
        status, headers, _ = await raw.answer()
        assert (status, headers["upload-offset"]) == (409, "400000")
        raw = await Raw.open(server)
        await raw.send(f"DELETE /v1/tasks/{task}/result HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await raw.answer())[0] == 204
        assert (await offset_of(raw, task))[0] == 0
        await raw.send(patch(task, body[:400_000], 0, f"Upload-Length: {len(body)}", complete="?0"))
        assert (await raw.answer())[0] == 204
        await raw.send(patch(task, body[400_000:], 400_000))
        assert (await raw.answer())[0] == 201
        await client.close()


async def test_another_connection_takes_a_half_dead_one_over() -> None:
    """The first connection neither sends nor closes: HEAD on another one stops it, and what came is not lost."""
    async with serving(True, upload_slots=2) as server:
        client, _, task = await training(server)
        body, dead, raw = document(), await Raw.open(server), await Raw.open(server)
        await dead.send(put(task, body)[0] + body[:900_000])

        async def came() -> bool:
            upload = server.runtime.uploads.find(task)
            return upload is not None

        await until(came)
        have, _ = await offset_of(raw, task)
        with suppress(ConnectionError):
            await dead.send(body[900_000:])  # too late: it goes nowhere
        await raw.send(patch(task, body[have:], have))
        assert (await raw.answer())[0] == 201
        await client.close()


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_a_second_upload_waits_unread_until_the_first_ends(zero_copy: bool) -> None:
    """The first goes on, slowly, and counts; the second, the same, waits for that and is answered 200, another one is
    409 `different-body`."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        body, first, second, other = document(), *[await Raw.open(server) for _ in range(3)]
        await first.send(put(task, body)[0] + body[:100_000])

        async def came() -> bool:
            upload = server.runtime.uploads.find(task)
            return upload is not None and upload.read

        await until(came)
        sending = [asyncio.create_task(second.send(b"".join(put(task, body))))]
        sending.append(asyncio.create_task(other.send(b"".join(put(task, document(0.25))))))
        answers = [asyncio.create_task(one.answer()) for one in (second, other)]
        for at in range(100_000, 1_000_000, 30_000):  # 3 s
            await first.send(body[at : at + 30_000])
            await asyncio.sleep(0.1)
        assert not any(one.done() for one in answers)
        await first.send(body[1_000_000:])
        assert (await first.answer())[0] == 201
        assert [(await one)[0] for one in answers] == [200, 409]
        await asyncio.gather(*sending)
        await client.close()


@pytest.mark.parametrize("zero_copy", PATHS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_second_upload_takes_over_from_one_that_is_silent(zero_copy: bool, chunked: bool) -> None:
    """After 2 s without a byte, not before; the silent one is told who took over, and what to do."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        body, silent, second = document(), *[await Raw.open(server) for _ in range(2)]
        head = put(task, body)[0]
        if chunked:
            head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
        await silent.send(head + (b"5\r\n" if chunked else b"") + body[:5] + (b"\r\n" if chunked else b""))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await second.send(b"".join(put(task, body)))
        assert (await second.answer())[0] == 201
        assert 1.5 < time.monotonic() - began < 4
        status, _, problem = await silent.answer()
        assert status == 408
        assert "another connection sends the result of this task: send it again" in json.loads(problem)["detail"]
        await client.close()


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_whoever_asks_how_much_is_here_stops_a_silent_upload_at_once(zero_copy: bool) -> None:
    """HEAD on another connection, over the stock protocol too: 408 for the one that was read."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        body, dead, raw = document(), *[await Raw.open(server) for _ in range(2)]
        await dead.send(put(task, body)[0] + body[:30_000])

        async def came() -> bool:
            upload = server.runtime.uploads.find(task)
            return upload is not None and upload.read

        await until(came)
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            assert (await offset_of(raw, task))[0] == 30_000
            status, _, problem = await dead.answer()
        assert (status, "asked how much" in json.loads(problem)["detail"]) == (408, True)
        await client.close()


async def test_what_came_for_a_task_goes_with_the_task() -> None:
    """Nobody will ever send the rest: its memory is free when the task is void."""
    async with serving(True) as server:
        client, _, task = await training(server)
        raw = await Raw.open(server)
        await raw.send(patch(task, document()[:400_000], 0, "Upload-Length: 1000000", complete="?0"))
        assert (await raw.answer())[0] == 204
        assert server.runtime.uploads.find(task) is not None
        await client.stop_run("current")

        async def gone() -> bool:
            return server.runtime.uploads.find(task) is None

        await until(gone)
        await client.close()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Upload-Offset: x\r\nUpload-Complete: ?1", 400),
        ("Upload-Complete: ?1", 400),
        ("Upload-Offset: 0", 400),
        ("Upload-Offset: 0\r\nUpload-Complete: yes", 400),
        ("Upload-Offset: 0\r\nUpload-Complete: ?0", 400),
        ("Upload-Offset: 0\r\nUpload-Complete: ?0\r\nUpload-Length: 99999999999", 413),
        ("Upload-Offset: 0\r\nUpload-Complete: ?0\r\nUpload-Length: 2", 413),
        ("Upload-Offset: 5\r\nUpload-Complete: ?1", 409),
    ],
)
async def test_wrong_parts_are_refused(lines: str, status: int) -> None:
    """Headers that are missing or make no sense: a problem document, nothing kept."""
    async with serving(True) as server:
        client, _, task = await training(server)
        raw = await Raw.open(server)
        head = (
            f"PATCH /v1/tasks/{task}/result HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/partial-upload\r\n"
        )
        await raw.send(f"{head}Content-Length: 4\r\n{lines}\r\n\r\nabcd".encode())
        got, headers, _ = await raw.answer()
        assert (got, headers["content-type"]) == (status, "application/problem+json")
        await client.close()


@asynccontextmanager
async def cutting(port: int, cuts: list[int]) -> AsyncIterator[tuple[int, list[int]]]:
    """A proxy that cuts the n-th connection after `cuts[n]` bytes from the client; gives its port and what passed."""
    passed: list[int] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None, at: int) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if most is not None:
                    data = data[: most - passed[at]]
                    passed[at] += len(data)
                writer.write(data)
                await writer.drain()
                if most is not None and passed[at] >= most:
                    break
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(passed)
        passed.append(0)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        most = cuts[at] if at < len(cuts) else 10**12
        await asyncio.wait(
            [
                asyncio.create_task(pump(reader, up_writer, most, at)),
                asyncio.create_task(pump(up_reader, writer, None, at)),
            ],
            return_when=asyncio.FIRST_COMPLETED,
        )
        writer.close()
        up_writer.close()

    proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with proxy:
        yield proxy.sockets[0].getsockname()[1], passed


@pytest.mark.parametrize("seed", range(8))
async def test_the_client_resends_only_what_is_missing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at random bytes: the client finishes, and sends hardly more than the upload in all."""
    monkeypatch.setattr("services.rest.backoff.FullJitter.seconds", lambda self, attempt: 0.01)
    size = 2_000_000
    body_parts: Any = [document(0.5, size)]
    async with serving(True) as server:
        client = Client(server.url)
        me = await client.join(m.JoinRequest(name="anna"))
        await client.start_run({"scaling_factor": "NumParticipants", "termination": {"federation_rounds": 1}})
        task = await client.next_task(me.id, 5)
        assert task is not None
        await client.submit(task, wire.encode(wire.decode(body_parts[0]).tensors))
        task = await client.next_task(me.id, 5)
        assert task is not None
        length = len(body_parts[0])
        port = server.servers[0].sockets[0].getsockname()[1]
        first = random.Random(seed).randrange(400, length)
        async with cutting(port, [first]) as (proxy, passed):
            cut = Client(f"http://127.0.0.1:{proxy}", me.token)
            moved = task.model_copy(
                update={"result": m.ResultTarget(url=f"http://127.0.0.1:{proxy}/v1/tasks/{task.id}/result")}
            )
            receipt = await cut.submit(moved, body_parts)
            await cut.close()
        assert receipt.size == length
        part = 1 << 20
        assert sum(passed) <= length + part + 4096
        await client.close()


def test_a_stall_makes_no_upload_old() -> None:
    """What came is kept for ten minutes in which its client could have gone on with it."""
    now = [1000.0]
    clock = Clock(lambda: now[0])
    uploads = Uploads(8, clock)
    clock.touch()
    cut = uploads.begin("cut", "anna", 10)
    now[0] += 2 * KEPT_S
    uploads.begin("next", "anna", 10)
    assert uploads.find("cut") is cut
    clock.touch()
    for _ in range(round(2 * KEPT_S / TICK_S)):
        now[0] += TICK_S
        clock.touch()
    uploads.begin("last", "anna", 10)
    assert uploads.find("cut") is None


def test_uploads_of_those_who_end_none_go_first() -> None:
    """Nine learners that begin one upload after the other push nobody out who has sent something whole since."""
    uploads = Uploads(4)
    for number in range(9):
        uploads.begin(f"begun-{number}", f"eve-{number}", 10)
    honest = uploads.begin("first", "anna", 10)
    with uploads.whole("first", honest):
        pass
    cut = uploads.begin("second", "anna", 10)
    for again in range(3):
        for number in range(9):
            uploads.begin(f"begun-{number}-{again}", f"eve-{number}", 10)
    assert uploads.find("second") is cut
    uploads.keep(lambda task: task == "second", lambda learner: None if learner.startswith("eve") else learner)
    assert uploads.find("second") is cut


def test_a_refused_upload_is_none_that_was_ended() -> None:
    """Whoever sends what is refused, whole, is not let off for it."""
    uploads = Uploads(2)
    for number in range(3):
        sent = uploads.begin(f"refused-{number}", "eve", 10)
        with pytest.raises(InvalidUpdate), uploads.whole(f"refused-{number}", sent):
            raise InvalidUpdate("no")
    cut = uploads.begin("cut", "anna", 10)
    uploads.begin("hers", "eve", 10)
    uploads.begin("next", "ben", 10)
    assert uploads.find("cut") is cut
    assert uploads.find("hers") is None
