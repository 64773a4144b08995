"""The contract spoken by hand: plain requests, and documents made by the public MessagePack library."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgpack
import numpy as np
from fastapi import FastAPI

from controller_api.app import create_app
from controller_api.server import Server
from controller_api.settings import Settings
from services import ModelStoreConfig
from tests.conftest import until

MSGPACK = "application/vnd.msgpack"
ENROLL, OPERATOR, VIEWER = (f"{role}-token-of-these-tests" for role in ("enroll", "operator", "viewer"))
TOKENS: dict[str, Any] = {"enroll_token": ENROLL, "operator_token": OPERATOR, "viewer_token": VIEWER}
CLOCKS = ("last_seen", "last_seen_s", "waiting_for")  # change with the time alone
REFUSALS = ("health",)  # what is counted of an update that is refused
TWO_ROUNDS: dict[str, Any] = {"termination": {"federation_rounds": 2}}


def settings(**given: Any) -> Settings:
    """Settings of a controller under test, with models in memory and a quiet log."""
    return Settings(**{"model_store": "InMemory", "log_level": "error", **given})


def bearer(token: str | None) -> dict[str, str]:
    """The header of a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def tensor(array: Any, name: str = "0") -> dict[str, Any]:
    """A tensor as the protocol has it."""
    made = np.ascontiguousarray(array)
    return {"name": name, "dtype": made.dtype.name, "shape": list(np.shape(array)), "data": made.tobytes()}


def document(*tensors: Any, examples: Any = 10, **more: Any) -> bytes:
    """A weights document of arrays (called "0", "1", …) or of ready tensors; as an update of `examples` rows."""
    ready = [one if isinstance(one, Mapping) else tensor(one, str(i)) for i, one in enumerate(tensors)]
    return msgpack.packb({"metrics": {}, "metadata": {"num_training_examples": examples}, "tensors": ready, **more})


def model(*arrays: Any) -> bytes:
    """A weights document of tensors alone."""
    return msgpack.packb({"tensors": [tensor(array, str(i)) for i, array in enumerate(arrays)]})


def digest_of(body: bytes) -> str:
    """The digest of a document."""
    return f"sha256-{hashlib.sha256(body).hexdigest()}"


def arrays_of(body: bytes) -> list[list[float]]:
    """The float32 tensors of a document, flat."""
    tensors = msgpack.unpackb(body)["tensors"]
    return [np.frombuffer(one["data"], one["dtype"]).tolist() for one in tensors]


def problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """The problem document of an answer, after a look at its form."""
    assert (answer.status_code, answer.headers.get("content-type")) == (status, "application/problem+json"), answer.text
    found: dict[str, Any] = answer.json()
    assert (found["type"], found["status"]) == (f"/errors/{name}", status), found
    assert found["title"]
    assert found["detail"]
    assert isinstance(found["retryable"], bool)
    return found


@dataclass
class Member:
    """A learner that does what a test tells it to."""

    http: httpx.AsyncClient
    id: str
    name: str
    token: str

    @property
    def path(self) -> str:
        """Its resource."""
        return f"/v1/learners/{self.id}"

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request under its own token."""
        return await self.http.request(method, path, headers={**bearer(self.token), **more.pop("headers", {})}, **more)

    async def task(self, wait: float = 5) -> dict[str, Any]:
        """Its next task; there must be one."""
        answer = await self.call("GET", f"{self.path}/task", params={"wait": wait})
        assert answer.status_code == 200, (answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    async def put(self, task: Mapping[str, Any], body: bytes, media: str = MSGPACK) -> httpx.Response:
        """Send a result."""
        path = f"/v1/tasks/{task['id']}/result"
        return await self.call("PUT", path, content=body, headers={"Content-Type": media})

    async def score(self, task: Mapping[str, Any], **metrics: float) -> httpx.Response:
        """Send the result of an evaluation."""
        return await self.call("PUT", f"/v1/tasks/{task['id']}/result", json={"metrics": metrics})

    async def work(self, value: float = 1.0, accuracy: float = 0.5) -> dict[str, Any]:
        """Do the next task, whatever it is; weights are two float32 tensors full of `value`."""
        task = await self.task()
        if task["kind"] == "evaluate":
            answer = await self.score(task, accuracy=accuracy)
        else:
            answer = await self.put(task, document(*weights(value)))
        assert answer.status_code == 201, answer.text
        return task


def weights(value: float = 0.0) -> list[Any]:
    """The tensors of these tests: a (2, 3) and a (3,) of float32."""
    return [np.full((2, 3), value, "<f4"), np.full(3, value, "<f4")]


async def join(http: httpx.AsyncClient, name: str, token: str | None = None, **request: Any) -> Member:
    """Enrol a learner."""
    answer = await http.post("/v1/learners", json={"name": name, **request}, headers=bearer(token))
    assert answer.status_code == 201, answer.text
    return Member(http, answer.json()["id"], name, answer.json()["token"])


async def begin(http: httpx.AsyncClient, *names: str, operator: str | None = None, **config: Any) -> list[Member]:
    """Learners in a run of two rounds that has its model 0 (zeros): each has the train task of round 1."""
    members = [await join(http, name, operator) for name in names]
    given = {"min_learners": len(members), **TWO_ROUNDS, **config}
    answer = await http.post("/v1/runs", json=given, headers=bearer(operator))
    assert answer.status_code == 201, answer.text
    asked = [one for one in members if (await one.call("GET", f"{one.path}/task")).status_code == 200]
    task = await asked[0].task()
    assert (len(asked), task["kind"]) == (1, "init")
    assert (await asked[0].put(task, model(*weights()))).status_code == 201
    return members


async def whole_round(members: list[Member], value: float, accuracy: float) -> None:
    """Every member trains to `value` and scores `accuracy`."""
    for _ in ("train", "evaluate"):
        for one in members:
            await one.work(value, accuracy)


async def seen(http: httpx.AsyncClient, operator: str | None = None) -> dict[str, Any]:
    """All that the federation shows of its state, without what the clock alone changes, and a refusal."""
    paths = ("/v1/federation", "/v1/learners", "/v1/runs")
    found = {path: (await http.get(path, headers=bearer(operator))).json() for path in paths}
    for run in found["/v1/runs"]:
        for part in ("rounds", "results"):
            path = f"/v1/runs/{run['id']}/{part}"
            found[path] = (await http.get(path, headers=bearer(operator))).json()
    still: dict[str, Any] = _still(found)
    return still


def _still(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _still(item) for key, item in value.items() if key not in CLOCKS + REFUSALS}
    return [_still(item) for item in value] if isinstance(value, list) else value


@dataclass
class Running:
    """A controller that listens on a free port, in this process."""

    app: FastAPI
    port: int
    http: httpx.AsyncClient

    async def raw(self, request: bytes, seconds: float = 5.0) -> bytes:
        """What it answers to these bytes until it closes, or until the answer's head and body are there."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(seconds):
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                return head + await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def listening(**given: Any) -> AsyncIterator[Running]:
    """The controller's own server on a free port of 127.0.0.1."""
    made = settings(port=0, **given)
    app = create_app(made, model_store_config=ModelStoreConfig())
    server = Server(app, made)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(server.serve())

        async def started() -> bool:
            return server.started

        await until(started)
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
            yield Running(app, int(server.url.rpartition(":")[2]), http)
        server.should_exit = True
