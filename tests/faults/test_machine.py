"""A real controller driven in any order: enrolments, polls, results once, twice, late and wrong, leaving, deaths.

Whatever came before, what was acknowledged is in the results once, rounds only go up, and no answer is a 5xx.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.controller_api.driving import MSGPACK, bearer, digest_of, document, model, weights
from tests.faults.federation import IN_FULL
from tests.faults.processes import ControllerProcess

NAMES = ("anna", "bert", "carl")
STEPS = ("poll", "send", "send", "again", "other", "late", "fail", "join", "leave", "kill")
RUN: dict[str, Any] = {
    "schedule": {"min_updates": 1, "round_deadline_s": 2, "lease_s": 60},
    "termination": {"federation_rounds": 1000},
}
Step = tuple[str, str]


@dataclass
class Learner:
    """A learner as it sees itself."""

    id: str
    token: str
    task: dict[str, Any] | None = None
    before: list[dict[str, Any]] = field(default_factory=list)  # tasks that it had


class Driven:
    """The controller, and what it acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.controller = ControllerProcess(folder)
        self.learners: dict[str, Learner] = {}
        self.acknowledged: dict[str, bytes] = {}  # bodies by task
        self.round = 0

    async def begin(self) -> None:
        """A run over a model that was put before, with one learner to begin with."""
        assert await self.controller.start()
        body = model(*weights())
        path = f"/v1/models/{digest_of(body)}"
        assert (await self.call("PUT", path, content=body, headers={"Content-Type": MSGPACK})).status_code == 201
        await self.join("anna")
        started = await self.call("POST", "/v1/runs", json={**RUN, "initial_model": digest_of(body)})
        assert started.status_code == 201, started.text

    async def call(self, method: str, path: str, learner: Learner | None = None, **more: Any) -> httpx.Response:
        """A request; its answer is none of the server's errors."""
        headers = {**(bearer(learner.token) if learner else {}), **more.pop("headers", {})}
        async with httpx.AsyncClient(base_url=self.controller.url, trust_env=False) as http:
            answer = await http.request(method, path, headers=headers, **more)
        assert answer.status_code < 500, (method, path, answer.text)
        return answer

    async def do(self, step: Step) -> None:
        """One step, by the learner that it names."""
        kind, name = step
        learner = self.learners.get(name)
        if kind == "kill":
            await self.controller.kill()
            assert await self.controller.start()
        elif kind == "join":
            await self.join(name)
        elif learner is not None:
            await getattr(self, kind)(name, learner)
        await self.check()

    async def join(self, name: str) -> None:
        """Enrol; an enrolled learner reports back."""
        learner = self.learners.get(name)
        answer = await self.call("POST", "/v1/learners", learner, json={"name": name, "num_training_examples": 10})
        assert answer.status_code == (200 if learner else 201), answer.text
        if learner is None:
            self.learners[name] = Learner(answer.json()["id"], answer.json()["token"])

    async def poll(self, name: str, learner: Learner) -> None:
        """Ask for a task."""
        answer = await self.call("GET", f"/v1/learners/{learner.id}/task", learner)
        assert answer.status_code in (200, 204)
        if answer.status_code == 200 and (learner.task or {}).get("id") != answer.json()["id"]:
            learner.before += [learner.task] if learner.task else []
            learner.task = answer.json()

    async def send(self, name: str, learner: Learner) -> None:
        """The result of its task, which may have been sent before or be too late."""
        if learner.task:
            await self.put(learner, learner.task, 1.0)

    async def again(self, name: str, learner: Learner) -> None:
        """A result five times at once."""
        if learner.task:
            task = learner.task
            answers = await asyncio.gather(*(self.put(learner, task, 1.0) for _ in range(5)))
            assert sum(answer.status_code == 201 for answer in answers) <= 1

    async def other(self, name: str, learner: Learner) -> None:
        """Another result than the one that was taken is refused."""
        if learner.task and learner.task["id"] in self.acknowledged:
            assert (await self.put(learner, learner.task, 2.0)).status_code in (409, 410)

    async def late(self, name: str, learner: Learner) -> None:
        """The result of a task of before."""
        if learner.before:
            await self.put(learner, learner.before[0], 1.0)

    async def fail(self, name: str, learner: Learner) -> None:
        """It could not do its task."""
        if learner.task:
            path = f"/v1/tasks/{learner.task['id']}/failure"
            assert (await self.call("POST", path, learner, json={"error": "no"})).status_code in (204, 409, 410)

    async def leave(self, name: str, learner: Learner) -> None:
        """It leaves, and is forgotten."""
        if len(self.learners) > 1:
            assert (await self.call("DELETE", f"/v1/learners/{learner.id}", learner)).status_code == 204
            del self.learners[name]

    async def put(self, learner: Learner, task: dict[str, Any], value: float) -> httpx.Response:
        """Send a result; when it is taken, note that."""
        path = f"/v1/tasks/{task['id']}/result"
        if task["kind"] == "evaluate":
            body, media = f'{{"metrics": {{"accuracy": {value / 4}}}}}'.encode(), "application/json"
        else:
            body, media = document(*weights(value + task["round"])), MSGPACK
        answer = await self.call("PUT", path, learner, content=body, headers={"Content-Type": media})
        assert answer.status_code in (200, 201, 409, 410), answer.text
        if answer.status_code < 300:
            assert self.acknowledged.setdefault(task["id"], body) == body
        return answer

    async def check(self) -> None:
        """What must hold after every step."""
        results = (await self.call("GET", "/v1/runs/latest/results")).json()
        taken = Counter(one["id"] for one in results["tasks"] if one["state"] == "accepted")
        assert set(self.acknowledged) <= set(taken), "an acknowledged result is lost"
        assert set(taken.values()) <= {1}, "a result is there twice"
        assert results["run"]["round"] >= self.round, "a round went back"
        self.round = results["run"]["round"]
        assert [one["round"] for one in results["rounds"]] == list(range(1, len(results["rounds"]) + 1))


@pytest.mark.timeout(900)
@settings(
    max_examples=40 if IN_FULL else 3,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    derandomize=not IN_FULL,
)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(NAMES)), min_size=20, max_size=60))
def test_any_order(steps: list[Step]) -> None:
    """No order of calls and deaths loses an acknowledged result, counts one twice, or turns a round back."""

    async def drive() -> None:
        with tempfile.TemporaryDirectory(prefix="metis-test-") as folder:
            driven = Driven(Path(folder))
            try:
                await driven.begin()
                for step in steps:
                    await driven.do(step)
            finally:
                driven.controller.end()

    asyncio.run(drive())
