"""Learners that only wait, thousands in one process: a connection each that enrols and then polls for a task for ever.

They are as cheap as they can be, so that what is measured is the controller.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from ..local import HOST
from .channel import line

AT_ONCE = 64  # enrolments that are under way
BACKLOG_S = 60.0  # how long a connection may take


@dataclass
class Crowd:
    """What they have seen so far."""

    port: int  # of the controller
    wait_s: float
    enrolled: int = 0
    ended_polls: int = 0
    tasks_at: list[float] = field(default_factory=list)  # on the monotonic clock, which all processes share
    refused: str | None = None  # the first answer that was not expected
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    everyone: list[WaitingLearner] = field(default_factory=list)

    async def enrol(self, count: int) -> None:
        """Let so many enrol and begin to wait."""
        loop, room = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)

        async def one(index: int) -> None:
            async with room, asyncio.timeout(BACKLOG_S):
                _, waiting = await loop.create_connection(lambda: WaitingLearner(self, index), HOST, self.port)
                self.everyone.append(waiting)
                await waiting.enrolled

        async with asyncio.TaskGroup() as group:
            for index in range(count):
                group.create_task(one(index))

    async def until_tasks(self, wanted: int, within_s: float) -> None:
        """Until so many have a task, or the time is over."""
        try:
            async with asyncio.timeout(within_s):
                while len(self.tasks_at) < wanted and self.refused is None:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            self.refused = f"only {len(self.tasks_at)} of {wanted} had their task after {within_s:g} s"

    def wait_again(self) -> None:
        """Those that have a task leave it undone and wait for another."""
        self.tasks_at.clear()
        for waiting in self.everyone:
            if waiting.has_task:
                waiting.poll()

    def refuse(self, why: str) -> None:
        """Something is wrong."""
        self.refused = self.refused or why
        self.changed.set()

    def close(self) -> None:
        """Hang up."""
        for waiting in self.everyone:
            waiting.close()


class WaitingLearner(asyncio.Protocol):
    """One learner and its connection."""

    def __init__(self, crowd: Crowd, index: int) -> None:
        self.enrolled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_task = False
        self._crowd = crowd
        self._index = index
        self._buffer = b""
        self._request = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        """Enrol."""
        self._transport = transport
        body = json.dumps({"name": f"crowd-{self._index:05d}", "kinds": ["train"]}).encode()
        self._transport.write(
            b"POST /v1/learners HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def poll(self) -> None:
        """Ask for a task."""
        self.has_task = False
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        status, length = int(head[9:12]), 0
        for field_line in head.split(b"\r\n")[1:]:
            name, _, value = field_line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(body) >= length:
            self._buffer = b""
            self._answered(status, body)

    def _answered(self, status: int, body: bytes) -> None:
        crowd = self._crowd
        if status == 201 and not self._request:
            me = json.loads(body)
            self._request = (
                f"GET /v1/learners/{me['id']}/task?wait={crowd.wait_s:g} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {me['token']}\r\n\r\n"
            ).encode()
            crowd.enrolled += 1
            self.enrolled.set_result(None)
            self.poll()
        elif status == 200:
            crowd.tasks_at.append(time.monotonic())
            self.has_task = True
            crowd.changed.set()
        elif status == 204:
            crowd.ended_polls += 1
            self.poll()
        else:
            crowd.refuse(f"{status} {body[:300].decode(errors='replace')}")
            if not self.enrolled.done():
                self.enrolled.set_exception(ConnectionError(f"enrolling was answered {status}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It is not expected to end."""
        if not self.enrolled.done():
            self.enrolled.set_exception(ConnectionError(f"the controller closed connection {self._index}"))
        self._crowd.refuse(f"the controller closed the connection of learner {self._index}")


async def answer(crowd: Crowd, question: dict[str, Any]) -> dict[str, Any]:
    """Do what the bench asks."""
    if question["ask"] == "enrol":
        await crowd.enrol(question["count"])
    elif question["ask"] == "tasks":
        await crowd.until_tasks(question["wanted"], question["within_s"])
    elif question["ask"] == "again":
        crowd.wait_again()
    return {
        "enrolled": crowd.enrolled,
        "ended_polls": crowd.ended_polls,
        "tasks": len(crowd.tasks_at),
        "last_task_at": max(crowd.tasks_at, default=None),
        "refused": crowd.refused,
    }


async def work(bench_port: int, controller_port: int, wait_s: float) -> None:
    """Answer until the bench is gone."""
    reader, writer = await asyncio.open_connection(HOST, bench_port)
    crowd = Crowd(controller_port, wait_s)
    while asked := await reader.readline():
        writer.write(line(await answer(crowd, json.loads(asked))))
        await writer.drain()


def main() -> None:
    """Entry point: `python -m driver_cli.bench.crowd`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=int, required=True, help="port of the bench")
    parser.add_argument("--controller", type=int, required=True, help="port of the controller")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds that a poll asks for")
    given = parser.parse_args()
    asyncio.run(work(given.bench, given.controller, given.wait))


if __name__ == "__main__":
    main()
