"""The same requests through the zero-copy protocol and through uvicorn's stock one: the same answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mmap
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import uvloop

from controller_api.app import create_app
from controller_api.server import Server
from controller_api.settings import Settings
from controller_api.transport import protocol as zero_copy
from controller_api.transport import receiver as receiving
from services import ModelStoreConfig
from services import messages as m
from services.rest import Client
from services.weights import buffers as memory
from services.weights import wire
from tests.conftest import until
from tests.controller_api.webhooks.receiver import certificate

PATHS = [pytest.param(True, id="zero-copy"), pytest.param(False, id="stock")]
LOOPS = {"asyncio": asyncio.DefaultEventLoopPolicy, "uvloop": uvloop.EventLoopPolicy}  # uvloop is what uvicorn takes


@pytest.fixture(params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Every test of this module runs on either event loop."""
    return LOOPS[request.param]()


SIZE = 300_000  # parameters: 1.2 MB, beyond every limit below which bodies are handled inline


@asynccontextmanager
async def serving(zero_copy: bool, store: str = "InMemory", **settings: Any) -> AsyncIterator[Server]:
    """A real server on a free port of loopback."""
    given = Settings(port=0, model_store=store, **settings)
    server = Server(create_app(given, model_store_config=ModelStoreConfig(store, 1)), given, zero_copy)
    running = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await until(started)
    try:
        yield server
    finally:
        server.should_exit = True
        await running


def document(value: float = 0.5, size: int = SIZE) -> bytes:
    """An update of one tensor."""
    tensors = wire.name_tensors([np.full(size, value, np.float32)])
    return b"".join(wire.encode(tensors, {}, {"num_training_examples": 1}))


async def training(server: Server) -> tuple[Client, str, str]:
    """A client, a learner's id and its train task."""
    client = Client(server.url)
    me = await client.join(m.JoinRequest(name="anna"))
    await client.start_run({"scaling_factor": "NumParticipants", "termination": {"federation_rounds": 1}})
    task = await client.next_task(me.id, 5)
    assert task is not None
    await client.submit(task, wire.encode(wire.name_tensors([np.zeros(SIZE, np.float32)])))
    task = await client.next_task(me.id, 5)
    assert task is not None
    assert task.kind == "train"
    return client, me.id, task.id


class Raw:
    """A connection on which every byte is the test's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, server: Server) -> Raw:
        """Connect to a server."""
        port = server.servers[0].sockets[0].getsockname()[1]
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
            length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
            return int(head[0].split()[1]), headers, await self.reader.readexactly(length)

    async def closed(self, seconds: float = 10) -> bool:
        """Whether the server closes the connection."""
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(seconds):
                return await self.reader.read() == b"" or True
        return self.reader.at_eof()


def put(task: str, body: bytes, *extra: str) -> tuple[bytes, bytes]:
    """Head and body of an upload."""
    lines = [f"PUT /v1/tasks/{task}/result HTTP/1.1", "Host: localhost", f"Content-Type: {wire.MEDIA_TYPE}"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *extra, "", ""]).encode(), body


@pytest.mark.parametrize("zero_copy", PATHS)
@pytest.mark.parametrize("store", ["InMemory", "OnDisk"])
async def test_an_upload_and_a_download_keep_every_byte(zero_copy: bool, store: str, tmp_path: Any) -> None:
    """What is sent is what is aggregated and what comes back."""
    async with serving(zero_copy, store, data_dir=tmp_path) as server:
        client, me, task = await training(server)
        raw = await Raw.open(server)
        head, body = put(task, document(0.25))
        await raw.send(head + body[:1000])
        await raw.send(body[1000:])
        assert (await raw.answer())[0] == 201
        offered = await client.next_task(me, 10)
        assert offered is not None
        assert offered.kind == "evaluate"
        assert offered.model is not None
        model = wire.decode(await client.model(offered.model))
        assert (model.arrays[0] == 0.25).all()
        await raw.send(f"GET /v1/models/{offered.model.digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, headers, got = await raw.answer()
        assert (status, headers["etag"]) == (200, f'"{offered.model.digest}"')
        assert "sha256-" + hashlib.sha256(got).hexdigest() == offered.model.digest
        lines = (
            f"GET /v1/models/{offered.model.digest} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=500000-1000009\r\n\r\n"
        )
        await raw.send(lines.encode())
        assert await raw.answer() == (206, {**headers, **_ranged(len(got))}, got[500000:1000010])
        await raw.send(f"HEAD /v1/models/{offered.model.digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await raw.answer("HEAD"))[1]["content-length"] == str(len(got))
        await client.close()


def _ranged(size: int) -> dict[str, str]:
    return {"content-length": "500010", "content-range": f"bytes 500000-1000009/{size}"}


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_a_connection_is_used_again_after_a_body(zero_copy: bool) -> None:
    """Three uploads and a poll on one connection; the second and third are replays."""
    async with serving(zero_copy) as server:
        client, me, task = await training(server)
        raw = await Raw.open(server)
        statuses = []
        for _ in range(3):
            await raw.send(b"".join(put(task, document())))
            statuses.append((await raw.answer())[0])
            await raw.send(f"GET /v1/learners/{me} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            statuses.append((await raw.answer())[0])
        assert statuses == [201, 200, 200, 200, 200, 200]
        await client.close()


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_requests_may_follow_one_another_without_waiting(zero_copy: bool) -> None:
    """Pipelined requests behind a body are answered in order."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        raw = await Raw.open(server)
        await raw.send(b"".join(put(task, document())) + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        assert [(await raw.answer())[0] for _ in range(3)] == [201, 200, 200]
        await client.close()


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_a_client_may_wait_for_100_continue(zero_copy: bool) -> None:
    """Expect: 100-continue gets it, once the caller is known to be allowed."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        raw = await Raw.open(server)
        head, body = put(task, document(), "Expect: 100-continue")
        await raw.send(head)
        assert (await raw.answer())[0] == 100
        await raw.send(body)
        assert (await raw.answer())[0] == 201
        raw = await Raw.open(server)
        head, _ = put("0" * 16, document(), "Expect: 100-continue")
        await raw.send(head)
        assert (await raw.answer())[0] == 404
        await client.close()


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_a_cut_upload_changes_nothing_and_frees_its_slot(zero_copy: bool) -> None:
    """Cut at many places, with one slot only: the next upload still goes through, and the run's model is its alone."""
    async with serving(zero_copy, upload_slots=1) as server:
        client, me, task = await training(server)
        body = document(777.0)
        for at in [0, 1, 100, 70_000, 600_000, len(body) - 1]:
            raw = await Raw.open(server)
            head, _ = put(task, body)
            await raw.send(head + body[:at])
            raw.writer.transport.abort()
        raw = await Raw.open(server)
        await raw.send(b"".join(put(task, document(0.25))))
        assert (await raw.answer())[0] == 201
        offered = await client.next_task(me, 10)
        assert offered is not None
        assert offered.model is not None
        assert (wire.decode(await client.model(offered.model)).arrays[0] == 0.25).all()
        await client.close()


async def test_an_open_connection_does_not_hold_the_buffer_of_its_last_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six connections that stay open send a body one after the other: two mappings serve them all."""
    mapped: list[int] = []
    fresh = memory._map

    def counted(length: int) -> mmap.mmap:
        mapped.append(length)
        return fresh(length)

    async with serving(True) as server:
        client, _, task = await training(server)
        opened = [await Raw.open(server) for _ in range(6)]
        monkeypatch.setattr(memory, "_map", counted)
        for raw in opened:
            await raw.send(b"".join(put(task, document())))
            assert (await raw.answer())[0] in (200, 201)
        assert len(mapped) <= 2
        await client.close()


async def test_a_given_up_body_never_touches_its_buffer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that stalls is answered 408; what its client sends afterwards reaches no buffer that is used again."""
    seen: list[memoryview] = []

    def watched(size: int) -> memoryview:
        seen.append(memory.allocate(size))
        return seen[-1]

    monkeypatch.setattr("controller_api.transport.uploads.allocate", watched)
    async with serving(True, upload_slots=1, body_timeout_s=0.2) as server:
        client, _, task = await training(server)
        raw = await Raw.open(server)
        head, body = put(task, b"\xff" * 1_200_000)
        await raw.send(head + body[:500_000])
        status, headers, problem = await raw.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(problem)["type"] == "/errors/body-too-slow"
        buffer = seen[-1]
        buffer[:] = bytes(len(buffer))  # somebody else's now
        with suppress(ConnectionError):
            await raw.send(body[500_000:])
        await raw.closed()
        assert not any(buffer)
        await client.close()


async def test_a_download_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that stops reading loses its connection; the file is closed."""
    monkeypatch.setattr(receiving, "STALL_S", 0.2)
    async with serving(True) as server:
        client = Client(server.url)
        digest = await client.put_model([document(1.0, 8_000_000)])
        raw = await Raw.open(server)
        cast(asyncio.Transport, raw.writer.transport).pause_reading()
        await raw.send(f"GET /v1/models/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

        async def given_up() -> bool:
            port = raw.writer.get_extra_info("sockname")[1]
            return all(one.client[1] != port for one in cast(set[Any], server.server_state.connections))

        await until(given_up, 10)
        await client.close()


@pytest.mark.parametrize("path", ["/static/swagger-ui-bundle.js", "/docs"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_an_answer_that_nobody_reads_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, tls: bool
) -> None:
    """A peer that asks again and again and reads nothing loses its connection, whatever it asked for."""
    monkeypatch.setattr(receiving, "STALL_S", 0.3)
    given: dict[str, Any] = {}
    context = None
    if tls:
        own, key = certificate(tmp_path, "localhost")
        given = {"root_certificate": str(own), "server_certificate": str(own), "private_key": str(key)}
        context = ssl.create_default_context(cafile=str(own))
    async with serving(True, **given) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        buffers = socket.socket()
        buffers.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        buffers.connect(("127.0.0.1", port))
        raw = Raw(
            *await asyncio.open_connection(sock=buffers, ssl=context, server_hostname="localhost" if tls else None)
        )
        cast(asyncio.Transport, raw.writer.transport).pause_reading()
        own_port = raw.writer.get_extra_info("sockname")[1]

        async def given_up() -> bool:
            with suppress(ConnectionError):
                await raw.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return all(one.client[1] != own_port for one in cast(set[Any], server.server_state.connections))

        await until(given_up, 30)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 150 + b"\r\n",
    ],
)
async def test_a_head_that_is_too_large_is_431(head: bytes) -> None:
    """Long fields, long paths, many fields."""
    async with serving(True) as server:
        raw = await Raw.open(server)
        with suppress(ConnectionError):
            await raw.send(head)
        status, headers, problem = await raw.answer()
        assert (status, headers["content-type"]) == (431, "application/problem+json")
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert json.loads(problem)["type"] == "/errors/head-too-large"
        assert await raw.closed()


async def test_a_head_without_end_is_refused_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight megabytes of one field: refused long before they are all there, none of them kept, cut off in the end."""
    monkeypatch.setattr(zero_copy, "LINGER_BYTES", 2_000_000)
    async with serving(True) as server:
        raw = await Raw.open(server)
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000)
        assert (await raw.answer())[0] == 431
        with pytest.raises(ConnectionError):
            await raw.send(b"a" * 8_000_000)


@pytest.mark.parametrize(
    "trailers",
    [b"a:\r\n" * 20_000, b"a" * 200_000, b"a: " + b"b" * 200_000, b"".join(b"x-%d: y\r\n" % i for i in range(101))],
    ids=["many", "one name", "one value", "too many fields"],
)
async def test_trailers_count_as_the_head_does(trailers: bytes) -> None:
    """What follows the last chunk is refused where a head would be, and is not kept."""
    async with serving(True) as server:
        raw = await Raw.open(server)
        head = (
            "POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        )
        await raw.send(f"{head}\r\n\r\n2\r\n{{}}\r\n0\r\n".encode())
        await raw.send(trailers)
        assert (await raw.answer())[0] == 431
        await raw.send(b"\r\n")
        assert await raw.closed()
        assert not server.runtime.federation.runs


async def test_trailers_are_read_over() -> None:
    """A few of them change nothing; none becomes a field of the head."""
    async with serving(True) as server:
        raw = await Raw.open(server)
        head = "POST /v1/learners HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        await raw.send(f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        await raw.send(b'10\r\n{"name": "anna"}\r\n0\r\nHost: evil.example\r\nX-A: b\r\n\r\n')
        assert (await raw.answer())[0] == 201
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await raw.answer())[0] == 200


async def test_a_head_that_does_not_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a head, nothing at all, and half a head on a connection that was used before."""
    monkeypatch.setattr(zero_copy, "HEAD_S", 0.3)
    async with serving(True) as server:
        half, silent, used = [await Raw.open(server) for _ in range(3)]
        await half.send(b"GET /healthz HTTP/1.1\r\nHos")
        await used.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await used.answer())[0] == 200
        await used.send(b"GET /hea")
        assert (await half.answer())[0] == 408
        assert (await used.answer())[0] == 408
        assert await silent.closed(5)


@pytest.mark.parametrize("zero_copy", PATHS)
@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: -1",
        "Transfer-Encoding: chunked, identity",
    ],
)
async def test_smuggling_is_400_and_closed(zero_copy: bool, lines: str) -> None:
    """Two ways to say a body's length, or an impossible one: refused, and the connection ends."""
    async with serving(zero_copy) as server:
        raw = await Raw.open(server)
        await raw.send(
            f"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}\r\n\r\n".encode()
        )
        await raw.send(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await raw.answer())[0] == 400
        assert await raw.closed()


@pytest.mark.parametrize("zero_copy", PATHS)
async def test_a_chunked_upload_is_taken(zero_copy: bool) -> None:
    """A body without a declared length, in chunks."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        raw = await Raw.open(server)
        body = document()
        head = f"PUT /v1/tasks/{task}/result HTTP/1.1\r\nHost: localhost\r\nContent-Type: {wire.MEDIA_TYPE}\r\n"
        await raw.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 100_000):
            piece = body[at : at + 100_000]
            await raw.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await raw.send(b"0\r\n\r\n")
        assert (await raw.answer())[0] == 201
        await client.close()


# ---- a controller that stood still
LIMIT_S = 0.4  # of what is sent here in parts


async def stall(raw: Raw, data: bytes = b"") -> None:
    """Block the server's loop for longer than any limit here, with `data` in its socket; then let it turn a little."""
    if data:
        assert os.write(raw.writer.get_extra_info("socket").fileno(), data) == len(data)
    time.sleep(2 * LIMIT_S)  # noqa: ASYNC251 - the loop is to stand still
    await asyncio.sleep(LIMIT_S / 4)


async def reading(server: Server, begun: Callable[[Any], bool]) -> None:
    """Wait until this is so of a connection."""

    async def there() -> bool:
        return any(begun(one) for one in cast(set[Any], server.server_state.connections))

    await until(there, 10)


async def test_a_head_is_not_late_because_of_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time was over meanwhile; its sender has the rest of it."""
    monkeypatch.setattr(zero_copy, "HEAD_S", LIMIT_S)
    async with serving(True) as server:
        raw = await Raw.open(server)
        await raw.send(b"GET /healthz HTTP/1.1\r\nHos")
        await reading(server, lambda one: one._head_open)
        await stall(raw)
        await raw.send(b"t: localhost\r\n\r\n")
        assert (await raw.answer())[0] == 200


async def test_a_large_body_is_not_slow_because_of_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of a body's rate."""
    monkeypatch.setattr(receiving, "STALL_S", LIMIT_S)
    async with serving(True) as server:
        client, _, task = await training(server)
        raw = await Raw.open(server)
        head, body = put(task, document())
        await raw.send(head)
        await reading(server, lambda one: isinstance(one.transport.get_protocol(), receiving.Sink))
        await stall(raw)
        await raw.send(body)
        assert (await raw.answer())[0] == 201
        await client.close()


@pytest.mark.parametrize("came", [True, False])
@pytest.mark.parametrize("zero_copy", PATHS)
async def test_a_body_is_not_silent_because_of_a_stall(zero_copy: bool, came: bool) -> None:
    """The same of the gate's longest silence, also when the rest had come and nobody read it."""
    async with serving(zero_copy, body_timeout_s=LIMIT_S) as server:
        raw = await Raw.open(server)
        body = b'{"name": "anna", "kinds": ["train"]}'
        head = "POST /v1/learners HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await raw.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
        await reading(server, lambda one: one.cycle is not None and not one.cycle.body)
        await stall(raw, body[5:] if came else b"")
        await raw.send(b"" if came else body[5:])
        assert (await raw.answer())[0] == 201


async def test_a_large_body_takes_turns_with_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it comes, the event loop reads a few of its pieces and then deals with others. By itself uvloop
    reads until it has emptied the socket, which never happens while memory that is new slows it down."""
    turn, read = 0, {0: 0}

    class Counting(receiving.Sink):
        def get_buffer(self, sizehint: int) -> memoryview:
            time.sleep(0.003)
            return super().get_buffer(sizehint)

        def buffer_updated(self, nbytes: int) -> None:
            read[turn] = read.get(turn, 0) + nbytes
            super().buffer_updated(nbytes)

    async def turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(zero_copy, "Sink", Counting)
    size = 32 * SIZE
    async with serving(True) as server:
        client = Client(server.url)
        me = await client.join(m.JoinRequest(name="anna"))
        await client.start_run({"termination": {"federation_rounds": 1}})
        task = await client.next_task(me.id, 5)
        assert task is not None
        counting = asyncio.create_task(turns())
        port = server.servers[0].sockets[0].getsockname()[1]
        head, body = put(task.id, document(size=size))

        def send() -> bytes:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(head + body)
                return connection.recv(12)

        assert await asyncio.to_thread(send) == b"HTTP/1.1 201"
        counting.cancel()
        await client.close()
    assert sum(read.values()) > len(body) // 2
    assert max(read.values()) < receiving.TURN + receiving.PIECE
