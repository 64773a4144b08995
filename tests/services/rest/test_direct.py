"""The direct client against a server that behaves in every way a network can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.errors import Unreachable
from services.rest.direct import Direct, NotPlain
from services.rest.exchange import Download, Request

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A raw server on loopback; gives its base url."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """The head of a request."""
    return await reader.readuntil(b"\r\n\r\n")


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_a_connection_is_used_again() -> None:
    """Two exchanges, one connection."""
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await head_of(reader)
            writer.write(answer(b"hello"))

    async with serving(handler) as url:
        client = Direct()
        got = [await client.send(Request("GET", url + "/x")) for _ in range(2)]
        await client.close()
    assert [(one.status, one.body) for one in got] == [(200, b"hello")] * 2
    assert connections == 1


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    """The server closes after each answer without saying so: the next call still succeeds."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer(b"once"))
        await writer.drain()

    async with serving(handler) as url:
        client = Direct()
        for _ in range(3):
            assert (await client.send(Request("GET", url + "/x"))).body == b"once"
        await client.close()


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_heads_and_bodies_may_come_in_any_pieces(step: int) -> None:
    """An answer that trickles in pieces of `step` bytes is the same answer."""
    body = bytes(range(256)) * 40

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        whole = answer(body, "200 OK", "Content-Type: application/json; charset=utf-8")
        for at in range(0, len(whole), step):
            writer.write(whole[at : at + step])
            await asyncio.sleep(0)

    async with serving(handler) as url:
        client = Direct()
        got = await client.send(Request("GET", url + "/x"))
        await client.close()
    assert got.body == body
    assert got.media_type == "application/json"


async def test_a_cut_download_keeps_what_came_and_resumes_by_range() -> None:
    """The second exchange asks for the rest only."""
    body, asked = bytes(range(256)) * 4000, []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(reader)
        if b"Range" not in head:
            writer.write(answer(body)[:300_000])
            await writer.drain()
            return
        first = int(head.split(b"bytes=")[1].split(b"-")[0])
        asked.append(first)
        writer.write(answer(body[first:], "206 Partial Content"))
        await writer.drain()

    async with serving(handler) as url:
        client, download = Direct(), Download(len(body))
        with pytest.raises(Unreachable):
            await client.send(Request("GET", url + "/m", into=download))
        await client.send(Request("GET", url + "/m", download.headers, into=download))
        await client.close()
    assert bytes(download.body()) == body
    assert asked[0] > 200_000


async def test_large_and_small_parts_arrive_in_order() -> None:
    """A body of many parts, some of them several pieces long, arrives as one after the other."""
    parts = [b"a" * 10, b"b" * 3_000_000, b"c", b"d" * 70_000, b"e" * 5]
    got = bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(reader)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        got.extend(await reader.readexactly(length))
        writer.write(answer(b""))
        await writer.drain()

    async with serving(handler) as url:
        client = Direct()
        await client.send(Request("PUT", url + "/r", parts=parts))
        await client.close()
    assert got == b"".join(parts)


async def test_an_early_answer_ends_an_upload() -> None:
    """A server that refuses before it read the body: its answer is seen, the rest is not sent."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer(b"no", "413 Too Large", "Connection: close"))
        await writer.drain()
        await reader.read(1000)

    async with serving(handler) as url:
        client = Direct()
        got = await client.send(Request("PUT", url + "/r", parts=[b"x" * 50_000_000]))
        await client.close()
    assert (got.status, got.body) == (413, b"no")


async def test_silence_is_bounded() -> None:
    """A server that never answers: Unreachable after the limit."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(handler) as url:
        client = Direct()
        with pytest.raises(Unreachable, match="within"):
            await client.send(Request("GET", url + "/x", limit_s=0.2))
        await client.close()


async def test_nobody_there() -> None:
    """A refused connection is Unreachable."""
    client = Direct()
    with pytest.raises(Unreachable, match="no connection"):
        await client.send(Request("GET", "http://127.0.0.1:9/x"))


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_what_is_not_plain_is_left_to_the_stock_client(raw: bytes) -> None:
    """Chunks, HTTP/1.0, other protocols: NotPlain."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(raw)
        await writer.drain()

    async with serving(handler) as url:
        client = Direct()
        with pytest.raises(NotPlain):
            await client.send(Request("GET", url + "/x"))
        await client.close()
