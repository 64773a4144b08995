"""Messages over a pipe: the lengths of a JSON head and of a body, then both. A body is bytes as they are, no pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import IO, Any

from services.weights import Buffer

LENGTHS = struct.Struct(">IQ")  # bytes of the head, bytes of the body


def send(pipe: IO[bytes], head: dict[str, Any], body: Sequence[Buffer] = ()) -> None:
    """Write a message; raises BrokenPipeError when the other side is gone."""
    text = json.dumps(head).encode()
    pipe.write(LENGTHS.pack(len(text), sum(memoryview(part).nbytes for part in body)) + text)
    for part in body:
        pipe.write(part)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytearray]:
    """Read a message; raises EOFError when the other side is gone."""
    head, body = LENGTHS.unpack(_exactly(pipe, LENGTHS.size))
    return json.loads(_exactly(pipe, head)), _exactly(pipe, body)


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        got = pipe.readinto(view[have:])  # type: ignore[attr-defined]  # a buffered reader has it
        if not got:
            raise EOFError("the other side of the pipe is gone")
        have += got
    return data
