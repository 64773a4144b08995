"""Bodies that drip: given up on every way that they come; beside them, an honest upload gets its place in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from controller_api.transport import rest
from tests.conftest import Process, Served, serve
from tests.controller_api.driving import MSGPACK, Member, digest_of, document, join, model
from tests.controller_api.transport.test_protocol import Raw, serving, training
from tests.controller_api.webhooks.receiver import certificate

PARAMETERS = 500_000  # float32: 2 MB, which takes a slot
SLOTS = 8  # the default
ROUNDS = 20
RUN: dict[str, Any] = {"evaluation": {"every": 0}, "termination": {"federation_rounds": ROUNDS}}


def update() -> bytes:
    """A whole update."""
    return document(np.ones(PARAMETERS, "<f4"))


def head(member: Member, task: str, *lines: str) -> bytes:
    """The head of an upload."""
    first = [f"PUT /v1/tasks/{task}/result HTTP/1.1", "Host: localhost", f"Authorization: Bearer {member.token}"]
    return "\r\n".join([*first, f"Content-Type: {MSGPACK}", *lines, "", ""]).encode()


async def chunked(member: Member, task: str, writer: asyncio.StreamWriter) -> None:
    """One byte in 25 s, in chunks."""
    writer.write(head(member, task, "Transfer-Encoding: chunked"))
    while True:
        writer.write(b"1\r\n\x83\r\n")
        await writer.drain()
        await asyncio.sleep(25)


async def declared(member: Member, task: str, writer: asyncio.StreamWriter) -> None:
    """1.6 kB/s of a body of declared length."""
    body = update()
    writer.write(head(member, task, f"Content-Length: {len(body)}"))
    for at in range(0, len(body), 160):
        writer.write(body[at : at + 160])
        await writer.drain()
        await asyncio.sleep(0.1)


DRIPS = {"chunked": chunked, "declared": declared}
Drip = Callable[[Member, str, asyncio.StreamWriter], Any]


async def drip_on(port: int, drip: Drip, member: Member, task: str) -> None:
    """Begin again whenever the controller ends it."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await drip(member, task, writer)
            finally:
                writer.close()
        await asyncio.sleep(0.05)


async def starts_after(port: int, member: Member, task: str) -> float:
    """Seconds until an honest upload is told to go on; it is then sent, and taken."""
    body, began = update(), time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(member, task, f"Content-Length: {len(body)}", "Expect: 100-continue"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    waited = time.monotonic() - began
    writer.write(body)
    await writer.drain()
    assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
    writer.close()
    return waited


@asynccontextmanager
async def attacked(served: Served, drip: Drip, names: list[str], earlier: int) -> AsyncIterator[tuple[Member, str]]:
    """An honest learner and its open task; each of the others has eight uploads under way, for its open task and, as
    many as there are, for `earlier` ones that were taken."""
    async with httpx.AsyncClient(base_url=served.url, timeout=30) as http, asyncio.TaskGroup() as group:
        first = model(np.zeros(PARAMETERS, "<f4"))
        put = await http.put(f"/v1/models/{digest_of(first)}", content=first, headers={"Content-Type": MSGPACK})
        assert put.status_code == 201
        members = [await join(http, name) for name in ("honest", *names)]
        given = {"min_learners": len(members), "initial_model": digest_of(first), **RUN}
        assert (await http.post("/v1/runs", json=given)).status_code == 201
        tasks: list[list[str]] = [[] for _ in members]
        for number in range(earlier + 1):
            for member, own in zip(members, tasks, strict=True):
                task = await member.task(10)
                assert task["round"] == number + 1
                own.append(task["id"])
            if number < earlier:
                answers = [await one.put({"id": own[-1]}, update()) for one, own in zip(members, tasks, strict=True)]
                assert [one.status_code for one in answers] == [201] * len(members)
        dripping = []
        for member, own in zip(members[1:], tasks[1:], strict=True):
            for number in range(SLOTS):
                dripping.append(group.create_task(drip_on(served.port, drip, member, own[-1 - number % len(own)])))
        await asyncio.sleep(0.5)  # until they have what they can get
        yield members[0], tasks[0][-1]
        for one in dripping:
            one.cancel()


@pytest.mark.parametrize("earlier", [0, SLOTS - 1], ids=["one task", "eight tasks"])
@pytest.mark.parametrize("drip", DRIPS)
async def test_beside_one_learner_with_eight_dripping_uploads(served: Served, drip: str, earlier: int) -> None:
    """An honest upload starts within 3 s, whether the eight are for one task or, most of them sent again, for eight."""
    async with attacked(served, DRIPS[drip], ["eve"], earlier) as (honest, task), asyncio.timeout(10):
        assert await starts_after(served.port, honest, task) < 3


@pytest.mark.slow
@pytest.mark.parametrize("drip", DRIPS)
async def test_beside_eight_such_learners(start: Callable[..., Process], tmp_path: Path, drip: str) -> None:
    """Within 35 s: all slots are theirs, and those that drip are given up."""
    served = serve(start, tmp_path)
    names = [f"eve-{number}" for number in range(SLOTS)]
    async with attacked(served, DRIPS[drip], names, 1) as (honest, task), asyncio.timeout(60):
        assert await starts_after(served.port, honest, task) < 35


# ---- on every way
MODEL = f"PUT /v1/models/sha256-{'0' * 64} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MSGPACK}\r\n"
JSON = "Host: localhost\r\nContent-Type: application/json\r\n"
RESULT = "/v1/tasks/{task}/result HTTP/1.1\r\nHost: localhost\r\n"
PART = "Content-Type: application/partial-upload\r\nUpload-Offset: 0\r\nUpload-Complete: ?1\r\n"
WAYS = {
    "large, of declared length": MODEL + "Content-Length: 1000000\r\n\r\n",
    "small, of declared length": MODEL + "Content-Length: 1000\r\n\r\n",
    "in chunks": MODEL + "Transfer-Encoding: chunked\r\n\r\n",
    "JSON": f"POST /v1/runs HTTP/1.1\r\n{JSON}Content-Length: 1000\r\n\r\n",
    "JSON in chunks": f"POST /v1/learners HTTP/1.1\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n",
}
RESULTS = {
    "a part of a result": f"PATCH {RESULT}{PART}Content-Length: 1000000\r\n\r\n",
    "a result": f"PUT {RESULT}Content-Type: {MSGPACK}\r\nContent-Length: 1000000\r\n\r\n",
}


async def dripped(raw: Raw, head: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request of whose body a byte comes ten times a second."""
    await raw.send(head.encode())
    answer = asyncio.create_task(raw.answer())
    with contextlib.suppress(ConnectionError):
        while not answer.done():
            await raw.send(b"1\r\n \r\n" if "chunked" in head else b" ")
            await asyncio.wait([answer], timeout=0.1)
    return await answer


def late(name: str, answer: tuple[int, dict[str, str], bytes]) -> None:
    """It says how much came, what is the least and what to do, and closes the connection."""
    status, headers, body = answer
    assert (status, headers["connection"]) == (408, "close"), name
    problem = json.loads(body)
    assert (problem["type"], problem["retryable"]) == ("/errors/body-too-slow", True)
    assert "bytes came in 1 s; after 1 s 1000000000 bytes per second are the least: send it again" in problem["detail"]


@pytest.mark.parametrize("way", ["zero-copy", "stock", "TLS"])
async def test_a_body_has_its_time_on_every_way(way: str, tmp_path: Path) -> None:
    """Large, small, in chunks, JSON, a part: 408 after the time that every body has."""
    made, key = certificate(tmp_path, "localhost")
    tls = {"root_certificate": str(made), "server_certificate": str(made), "private_key": str(key)}
    context = ssl.create_default_context(cafile=str(made)) if way == "TLS" else None
    limits: dict[str, Any] = {"body_total_s": 1.0, "body_rate": 10**9}
    async with serving(way != "stock", **limits, **(tls if way == "TLS" else {})) as server:
        port, began = server.servers[0].sockets[0].getsockname()[1], time.monotonic()
        opened = [await opening(port, context) for _ in WAYS]
        answers = await asyncio.gather(*map(dripped, opened, WAYS.values()))
        assert 1 <= time.monotonic() - began < 4
        for name, answer in zip(WAYS, answers, strict=True):
            late(name, answer)
        if way != "TLS":  # the client of `training` knows no certificate
            client, _, task = await training(server)
            for name, head in RESULTS.items():  # one after the other: they are of one task
                late(name, await dripped(await opening(port, None), head.format(task=task)))
            await client.close()


async def opening(port: int, context: ssl.SSLContext | None) -> Raw:
    """A connection, by TLS with a context."""
    name = "localhost" if context else None
    return Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name))


async def test_a_tls_hand_shake_has_its_time(tmp_path: Path) -> None:
    """A client that says nothing, or half a word, is closed; 10 s unless it is set."""
    made, key = certificate(tmp_path, "localhost")
    tls = {"root_certificate": str(made), "server_certificate": str(made), "private_key": str(key)}
    async with serving(True, tls_handshake_s=0.3, **tls) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        silent, half = await opening(port, None), await opening(port, None)
        await half.send(b"\x16\x03\x01")
        assert await silent.closed(5)
        assert await half.closed(5)
        whole = await opening(port, ssl.create_default_context(cafile=str(made)))
        await whole.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await whole.answer())[0] == 200


async def test_what_is_left_of_a_body_that_was_answered_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is dropped as it comes, and the connection is closed unless it ends; then it is used again."""
    monkeypatch.setattr(rest, "LINGER_S", 0.5)
    async with serving(True) as server:
        client, _, task = await training(server)
        port = server.servers[0].sockets[0].getsockname()[1]
        head = f"PUT {RESULT}Content-Type: application/json\r\nContent-Length: 20\r\n\r\n".format(task=task).encode()
        endless, ended = await opening(port, None), await opening(port, None)
        for one in (endless, ended):
            await one.send(head)
            assert (await one.answer())[0] == 415  # that task wants weights: nothing was read
        await ended.send(bytes(20))
        closing = asyncio.create_task(endless.closed(5))
        with contextlib.suppress(ConnectionError):
            for _ in range(15):
                await endless.send(b" ")
                await asyncio.wait([closing], timeout=0.1)
        assert await closing
        await ended.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await ended.answer())[0] == 200
        await client.close()


@pytest.mark.parametrize("zero_copy", [True, False])
async def test_weights_in_chunks_are_counted_against_the_model(zero_copy: bool) -> None:
    """413 as soon as there is more than the task's model and 1 MiB; the model here has 1.2 MB."""
    async with serving(zero_copy) as server:
        client, _, task = await training(server)
        raw, sent, piece = await opening(server.servers[0].sockets[0].getsockname()[1], None), 0, bytes(65536)
        head = f"PUT {RESULT}Content-Type: {MSGPACK}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await raw.send(head.format(task=task).encode())
        answer = asyncio.create_task(raw.answer())
        with contextlib.suppress(ConnectionError):
            while not answer.done() and sent < 50_000_000:
                await raw.send(b"10000\r\n" + piece + b"\r\n")
                sent += len(piece)
                await asyncio.wait([answer], timeout=0.005)
        status, headers, body = await answer
        assert (status, headers["connection"]) == (413, "close")
        assert 1_200_000 + 2**20 < json.loads(body)["limit"] < 1_201_000 + 2**20
        assert "a result of this task" in json.loads(body)["detail"]
        assert sent < 10_000_000  # what the sockets hold included
        assert not server.runtime.pace._bodies  # nobody looks at it any more
        await client.close()
