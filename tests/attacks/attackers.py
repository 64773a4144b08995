"""Attacks at full rate: `python -m tests.attacks.attackers NAME PORT`, until it is killed. Each is the work of learners
with valid tokens; what they send is in documents.py, what it must not do is in test_siege.py."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .documents import groups, tensors_of, tiny, update
from .honest import SHAPES

HOST = "127.0.0.1"
JSON, WEIGHTS = "application/json", "application/vnd.msgpack"
LONGEST_S = 120.0  # for an answer


class Mallory:
    """A learner on a connection of its own. It enrols again whenever it is put out, and so is let back."""

    def __init__(self, port: int, number: int, kinds: tuple[str, ...] = ("train",)) -> None:
        self._port = port
        self._told = {"name": f"mallory-{number}", "kinds": list(kinds)}
        self._connection = http.client.HTTPConnection(HOST, port, timeout=LONGEST_S)
        self.id = self.token = ""

    @property
    def credential(self) -> dict[str, str]:
        """The header of its token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def call(self, method: str, path: str, body: Any = b"", media: str = JSON) -> tuple[int, bytes]:
        """An answer's status and body; (0, nothing) when the connection was closed."""
        try:
            self._connection.request(method, path, body, {"Content-Type": media} | self.credential)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, b""

    def enrol(self, **more: Any) -> int:
        """Be a learner, or report back as one; the status."""
        status, told = self.call("POST", "/v1/learners", json.dumps(self._told | more))
        if status == 201:
            self.id, self.token = (json.loads(told)[key] for key in ("id", "token"))
        elif status == 401:
            self.id = self.token = ""
        return status

    def leave(self) -> None:
        """Be none any more."""
        self.call("DELETE", f"/v1/learners/{self.id}")
        self.id = self.token = ""

    def tasks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Its task and the path of the task's result, again and again; reports back while there is none."""
        while True:
            status, told = self.call("GET", f"/v1/learners/{self.id}/task?wait=0.2") if self.id else (0, b"")
            if status == 200:
                task = json.loads(told)
                yield f"/v1/tasks/{task['id']}/result", task
            else:
                self.enrol()


def each(count: int, work: Callable[[int], None]) -> None:
    """So many at once, for ever."""
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def bombs(port: int) -> None:
    """Four learners send documents that cost more than they weigh."""
    model = tensors_of(SHAPES, 1.0)
    sent = [
        groups(model, 64, 1_000),
        update(tiny(100_000)),
        update(tiny(40_000, 32)),
        update(model, metadata={str(i): i for i in range(60_000)}),
        groups(model, 64, 20_000),
    ]

    def work(number: int) -> None:
        mallory = Mallory(port, number)
        for (path, _), body in zip(mallory.tasks(), itertools.cycle(sent), strict=False):
            mallory.call("PUT", path, body, WEIGHTS)

    each(4, work)


def infinities(port: int) -> None:
    """Four learners send whole updates with one infinite value, at its end."""
    tensors = tensors_of(SHAPES, 1.0)
    tensors[-1]["data"] = np.array([1, 1, np.inf], "<f4").tobytes()
    body = update(tensors)

    def work(number: int) -> None:
        mallory = Mallory(port, number)
        for path, _ in mallory.tasks():
            mallory.call("PUT", path, body, WEIGHTS)

    each(4, work)


def drips(port: int) -> None:
    """Eight learners send each their update on eight connections: a byte a second in chunks, or 1.6 kB/s."""
    whole = update(tensors_of(SHAPES, 1.0))

    async def drip(mallory: Mallory, path: str, chunked: bool) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(whole)}"
        head = f"PUT {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {mallory.token}\r\n"
        writer.write(f"{head}Content-Type: {WEIGHTS}\r\n{length}\r\n\r\n".encode())
        answered = asyncio.create_task(reader.read(1))
        try:
            for at in itertools.count():
                writer.write(b"1\r\n%c\r\n" % whole[at] if chunked else whole[1600 * at : 1600 * at + 1600])
                await writer.drain()
                if (await asyncio.wait({answered}, timeout=1.0))[0]:
                    return
        finally:
            answered.cancel()
            writer.close()

    async def work(number: int) -> None:
        mallory = Mallory(port, number)
        for path, _ in mallory.tasks():  # its few calls hold up the others' drips for a moment: no matter
            with contextlib.suppress(OSError):
                await asyncio.gather(*(drip(mallory, path, bool(one % 2)) for one in range(8)), return_exceptions=True)

    def run(number: int) -> None:
        asyncio.run(work(number))

    each(8, run)


def unfinished(port: int) -> None:
    """Sixteen learners send half an update and hang up."""
    body = update(tensors_of(SHAPES, 1.0))

    def halves() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise BrokenPipeError

    def work(number: int) -> None:
        mallory = Mallory(port, number)
        for path, _ in mallory.tasks():
            head = {"Content-Type": WEIGHTS, "Content-Length": str(len(body))} | mallory.credential
            connection = http.client.HTTPConnection(HOST, port, timeout=LONGEST_S)
            with contextlib.suppress(OSError):
                connection.request("PUT", path, halves(), head)
            connection.close()

    each(16, work)


def words(port: int) -> None:
    """Four learners send JSON as fast as they can: heartbeats of progress, others of a megabyte, failures of theirs."""
    progress = {"epoch": 1, "loss": 0.5}
    spaces = b" " * 1_000_000 + b"{}"

    def work(number: int) -> None:
        mallory = Mallory(port, number)
        for turn, (path, task) in enumerate(mallory.tasks()):
            beat = json.dumps({"task_id": task["id"], "progress": progress | {"epoch": turn}})
            for _ in range(200):
                mallory.call("POST", f"/v1/learners/{mallory.id}/heartbeat", beat)
            mallory.call("POST", f"/v1/learners/{mallory.id}/heartbeat", spaces)
            nested = b'{"metrics":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001
            mallory.call("PUT", path, nested)

    each(4, work)


def ballast(port: int) -> None:
    """Two learners take part, and tell as much as they can: metadata, names of metrics, names of scores."""
    names = itertools.count()

    def work(number: int) -> None:
        mallory = Mallory(port, number, ("train", "evaluate"))
        for path, task in mallory.tasks():
            turn = next(names)
            if task["kind"] == "train":
                told = {"num_training_examples": 10} | {f"{turn}-{i}": "x" * 9_000 for i in range(6)}
                metrics = {f"metric-{turn}-{i:04}": 0.5 for i in range(1_000)}
                body = update(tensors_of(SHAPES, float(task["round"])), metadata=told, metrics=metrics)
                mallory.call("PUT", path, body, WEIGHTS)
            else:
                scores = {"metrics": {f"score-{turn}-{i:04}": 0.5 for i in range(1_000)}}
                mallory.call("PUT", path, json.dumps(scores))

    each(2, work)


def guests(port: int) -> None:
    """Two come and go, with labels of twelve kilobytes."""
    labels = {f"label-{i}": "x" * 190 for i in range(60)}
    names = itertools.count()

    def work(number: int) -> None:
        while True:
            mallory = Mallory(port, next(names), ("evaluate",))
            while mallory.enrol(labels=labels) == 201:
                mallory.leave()

    each(2, work)


def crowds(port: int) -> None:
    """Two let in more and more learners, who do nothing."""
    names = itertools.count()

    def work(number: int) -> None:
        mallory = Mallory(port, number, ("evaluate",))
        while True:
            mallory.id = mallory.token = ""
            mallory.enrol(name=f"nobody-{next(names)}")

    each(2, work)


@dataclass(frozen=True)
class Attack:
    """What it does, by how many learners, and whether these take part in rounds as they should."""

    run: Callable[[int], None]
    learners: int = 0
    takes_part: bool = False


ATTACKS = {
    "documents that cost more than they weigh": Attack(bombs, 4),
    "updates with an infinite value": Attack(infinities, 4),
    "64 uploads that drip": Attack(drips, 8),
    "uploads cut in the middle": Attack(unfinished, 16),
    "JSON without end": Attack(words, 4),
    "metadata, names of metrics and of scores": Attack(ballast, 2, takes_part=True),
    "learners that come and go": Attack(guests),
    "ever more learners": Attack(crowds),
}


if __name__ == "__main__":
    os.nice(19)
    ATTACKS[sys.argv[1]].run(int(sys.argv[2]))
