"""Many learners in one process, each with a connection: they report, poll, and come back at once when they are cut off.

As cheap as they can be, so that what is measured is the controller. Told what to do by lines of JSON on standard input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

HOST = "127.0.0.1"
WAIT_S = 60  # that a poll asks for
BACK_S = 0.1  # a learner that is cut off tries again within this time: there is no patience in it
BUSY = (429, 503, 507)
JSON, MSGPACK = "application/json", "application/vnd.msgpack"
SIZE = 4  # values of the model
CUT = (OSError, asyncio.IncompleteReadError)


@dataclass
class Crowd:
    """What its learners have seen; times are seconds on the monotonic clock, which all processes share."""

    port: int
    learners: list[Waiting] = field(default_factory=list)
    tasks: int = 0  # that were new to the learner
    accepted: int = 0
    problems: list[str] = field(default_factory=list)
    may_work: asyncio.Event = field(default_factory=asyncio.Event)

    def state(self) -> dict[str, Any]:
        """All of it, in plain words."""
        return {
            "in": sum(one.reported for one in self.learners),
            "in_at": [min(one.in_at for one in self.learners), max(one.in_at for one in self.learners)],
            "tasks": self.tasks,
            "accepted": self.accepted,
            "problems": self.problems[:3],
        }

    def drop(self) -> None:
        """Cut all connections."""
        for one in self.learners:
            one.cut()


class Waiting:
    """One learner; `reported` says whether the controller knows that it is here, `in_at` since when."""

    def __init__(self, crowd: Crowd, index: int) -> None:
        self.reported = False
        self.in_at = 0.0
        self._crowd, self._index = crowd, index
        self._me: dict[str, Any] = {}
        self._given: set[str] = set()
        self._done: set[str] = set()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    def cut(self) -> None:
        """Lose the connection."""
        self.reported = False
        if self._writer:
            self._writer.transport.abort()

    async def live(self) -> None:
        """Be in the federation for ever."""
        while True:
            try:
                self._reader, self._writer = await asyncio.open_connection(HOST, self._crowd.port)
                await self._report()
                while True:
                    await self._take_task()
            except CUT:
                self.cut()
                await asyncio.sleep(random.uniform(0, BACK_S))
            except Exception as error:
                self._crowd.problems.append(f"learner {self._index}: {error!r}")
                return

    async def _report(self) -> None:
        body = json.dumps({"name": f"crowd-{self._index:05d}", "kinds": ["train"]}).encode()
        me = json.loads(await self._call("POST", "/v1/learners", (200, 201), body, JSON))
        if self._me and me["id"] != self._me["id"]:
            raise ValueError(f"{self._me['id']} came back as {me['id']}")
        self._me = self._me or me
        self.reported = True
        self.in_at = time.monotonic()

    async def _take_task(self) -> None:
        answer = await self._call("GET", f"/v1/learners/{self._me['id']}/task?wait={WAIT_S}", (200, 204))
        if not answer:
            return
        task = json.loads(answer)["id"]
        if task in self._done:
            raise ValueError(f"task {task} is asked for again")
        self._crowd.tasks += task not in self._given
        self._given.add(task)
        await self._crowd.may_work.wait()
        await self._call("PUT", f"/v1/tasks/{task}/result", (200, 201), update(self._index), MSGPACK)
        self._done.add(task)
        self._crowd.accepted += 1

    async def _call(self, method: str, path: str, wanted: tuple[int, ...], body: bytes = b"", media: str = "") -> bytes:
        """The body of the answer; asks again while the controller is busy."""
        while True:
            status, answer = await self._ask(method, path, body, media)
            if status in wanted:
                return answer
            if status not in BUSY:
                raise ValueError(f"{method} {path} was answered {status}: {answer[:300]!r}")
            await asyncio.sleep(random.uniform(0, BACK_S))

    async def _ask(self, method: str, path: str, body: bytes, media: str) -> tuple[int, bytes]:
        assert self._writer
        token = f"Authorization: Bearer {self._me['token']}\r\n" if self._me else ""
        kind = f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n" if media else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}{kind}\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"content-length:")
        length = int(rest.partition(b"\r\n")[0] or 0)
        return int(head[9:12]), await self._reader.readexactly(length)


def update(index: int) -> bytes:
    """An update full of the learner's number."""
    tensor = {"name": "0", "dtype": "float32", "shape": [SIZE], "data": np.full(SIZE, index, "<f4").tobytes()}
    return bytes(msgpack.packb({"metadata": {"num_training_examples": 1}, "metrics": {}, "tensors": [tensor]}))


async def work(port: int, count: int) -> None:
    """Let so many live, and do what is asked until standard input ends."""
    crowd = Crowd(port)
    crowd.learners = [Waiting(crowd, index) for index in range(count)]
    living = [asyncio.create_task(one.live()) for one in crowd.learners]
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while question := (await asked.readline()).decode().strip():
        if question == "drop":
            crowd.drop()
        elif question == "work":
            crowd.may_work.set()
        print(json.dumps(crowd.state()), flush=True)
    for one in living:
        one.cancel()


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1]), int(sys.argv[2])))
