"""A TCP proxy that makes trouble: latency, a rate, cuts after so many bytes, refusals, partitions of either direction.

Every setting may be changed while connections are open. A partition keeps what is sent, as a network does whose peers
send it again; `forget()` ends the connections that are open, as a router that was started anew does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Self

PIECE = 1 << 16  # bytes
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Way:
    """One direction: `cuts` are bytes after which the next connections end, one each; `passed` counts by connection.

    After none: as soon as there is something that would pass.
    """

    def __init__(self) -> None:
        self.cuts: deque[int] = deque()
        self.passed: list[int] = []
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Nothing passes from now on, not even the end of a connection."""
        self._open.clear()

    def release(self) -> None:
        """What was held passes."""
        self._open.set()

    async def passes(self) -> None:
        """Wait until something may pass."""
        await self._open.wait()


class Proxy:
    """The way to a port of loopback. Use it in `async with`."""

    def __init__(self, port: int) -> None:
        self.up, self.down = Way(), Way()  # from the client, to the client
        self.latency_s = 0.0  # of each piece
        self.rate: float | None = None  # bytes per second
        self.refusing = False
        self.resets = False  # a cut is a reset, not an end
        self.url = ""
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def hold(self) -> None:
        """Partition both directions."""
        self.up.hold()
        self.down.hold()

    def heal(self) -> None:
        """No refusals, no partition."""
        self.refusing = False
        self.up.release()
        self.down.release()

    def forget(self) -> None:
        """Reset every open connection."""
        for writer in self._writers:
            _end(writer, reset=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            return _end(writer, reset=True)
        writers = {writer}
        try:
            there, onwards = await asyncio.open_connection("127.0.0.1", self._target)
            writers.add(onwards)
            self._writers |= writers
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._pump(self.up, reader, onwards)),
                    group.create_task(self._pump(self.down, there, writer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        except OSError:
            pass
        finally:
            self._writers -= writers
            for one in writers:
                _end(one, self.resets)

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at, most = len(way.passed), way.cuts.popleft() if way.cuts else None
        way.passed.append(0)
        while True:
            data = b""
            with suppress(ConnectionError):
                data = await reader.read(PIECE)
            await asyncio.sleep(self.latency_s + (len(data) / self.rate if self.rate else 0.0))
            await way.passes()
            data = data if most is None else data[: most - way.passed[at]]
            if not data:
                return
            way.passed[at] += len(data)
            with suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
            if way.passed[at] == most:
                return


def _end(writer: asyncio.StreamWriter, reset: bool) -> None:
    """End a connection: with what is still to be sent, or at once by a reset."""
    if not reset:
        return writer.close()
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
