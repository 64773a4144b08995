"""A listener that attackers take for a controller: `python -m tests.attacks.dummy PORT`. It reads whatever comes and
knows one answer to each call, so that what it costs is what the attackers themselves cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

LEARNER = json.dumps({"id": "0" * 16, "token": "x" * 43}).encode()
TASK = json.dumps({"id": "0" * 16, "kind": "train", "round": 1}).encode()
ANSWERS = {b"POST /v1/learners ": (201, LEARNER), b"GET ": (200, TASK), b"PUT ": (422, b"{}")}
PIECE = 1 << 18


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower().partition(b"content-length:")[2]
            left = int(fields.partition(b"\r\n")[0] or 0)
            if b"chunked" in head.lower():
                await reader.read(-1)
            while left:
                left -= len(await reader.readexactly(min(left, PIECE)))
            status, body = next((told for call, told in ANSWERS.items() if head.startswith(call)), (200, b"{}"))
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
            await writer.drain()
    writer.close()


async def main(port: int) -> None:
    """Until it is killed."""
    async with await asyncio.start_server(serve, "127.0.0.1", port, limit=PIECE) as server:
        await server.serve_forever()


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(main(int(sys.argv[1])))
