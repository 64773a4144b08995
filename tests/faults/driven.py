"""A controller that three learners drive call by call, and a look at everything after each step.

Every update is full of a number that says whose it is and of which round, so the mean of a round's model tells exactly
which updates counted in it, and how often.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.messages import TERMINAL
from tests.controller_api.driving import MSGPACK, arrays_of, bearer, digest_of, document, model, problem, weights
from tests.faults.processes import ControllerProcess

MARKS = {"anna": 1.0, "bert": 2.0, "carl": 4.0}  # powers of two: each subset has a mean of its own
CLOSE = 0.01  # two means that are alike, in float32
RUN: dict[str, Any] = {
    "scaling_factor": "NumParticipants",
    "schedule": {"min_updates": 1, "round_deadline_s": 20, "lease_s": 60},
    "termination": {"federation_rounds": 1000},
}
FIRST_TWO = {"participation_ratio": 0.5, "over_selection": 1.0}  # of three members two count: one is late
EVERYBODY = {"participation_ratio": 1.0}
SELECTIONS = (FIRST_TWO, EVERYBODY)  # of one run after the other
AT_A_TIME = 2  # tasks of a learner in a step: no model is replaced twice before it was looked at
Step = tuple[str, str, int]  # what is done, by whom, a number that makes it differ


@dataclass
class Learner:
    """A learner as it sees itself."""

    name: str
    id: str
    token: str
    task: dict[str, Any] | None = None
    before: list[dict[str, Any]] = field(default_factory=list)  # tasks that it had


class Driven:
    """The controller, what it acknowledged, refused and showed, and in `seen` how often what happened."""

    def __init__(self, folder: Path, seen: Counter[str]) -> None:
        self.controller = ControllerProcess(folder)
        self.http = httpx.AsyncClient(base_url=self.controller.url, trust_env=False, timeout=30)
        self.seen = seen
        self.learners: dict[str, Learner] = {}
        self.runs: list[str] = []
        self.asked: dict[tuple[str, str, int, str], str] = {}  # learner's id, run, round and kind to the task
        self.receipts: dict[str, dict[str, Any]] = {}  # by task
        self.first: set[str] = set()  # tasks whose result was told to be taken, not: to have been taken before
        self.refused: set[str] = set()  # tasks whose result can never count
        self.made: dict[tuple[str, int], tuple[str, list[str]]] = {}  # run and round to model and members
        self.closed: dict[tuple[str, int], dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, path: str, learner: Learner | None = None, **more: Any) -> httpx.Response:
        """A request; its answer is none of the server's errors."""
        headers = {**(bearer(learner.token) if learner else {}), **more.pop("headers", {})}
        answer = await self.http.request(method, path, headers=headers, **more)
        assert answer.status_code < 500, f"{method} {path}: {answer.text}\n{self.controller.tail()}"
        return answer

    async def get(self, path: str) -> Any:
        """What is there; it must be."""
        answer = await self.call("GET", path)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    async def follow(self) -> None:
        """Note the log, across deaths."""
        while True:
            last = {"Last-Event-ID": str(self.events[-1]["id"] if self.events else 0)}
            with contextlib.suppress(httpx.HTTPError):
                async with self.http.stream("GET", "/v1/events", headers=last) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            self.events.append(json.loads(line.removeprefix("data: ")))
            await asyncio.sleep(0.02)

    @property
    def next_selection(self) -> dict[str, float]:
        """Of the run that is started next."""
        return SELECTIONS[len(self.runs) % len(SELECTIONS)]

    async def start(self) -> None:
        """The next run, over a model of zeros that was put before."""
        body = model(*weights())
        path, media = f"/v1/models/{digest_of(body)}", {"Content-Type": MSGPACK}
        assert (await self.call("PUT", path, content=body, headers=media)).status_code in (200, 201)
        given = {**RUN, "selection": self.next_selection, "initial_model": digest_of(body)}
        answer = await self.call("POST", "/v1/runs", json=given)
        assert answer.status_code == 201, answer.text
        self.runs.append(answer.json()["id"])

    # ---- steps
    async def do(self, step: Step) -> None:
        """One step, then a look at everything. A learner that has left is enrolled first."""
        kind, name, number = step
        if name not in self.learners:
            await self.enrol(name)
        await getattr(self, kind)(self.learners[name], number)
        await self.check(self.runs[-1])

    async def enrol(self, name: str) -> None:
        """A new learner."""
        answer = await self.call("POST", "/v1/learners", json={"name": name})
        assert answer.status_code == 201, answer.text
        self.learners[name] = Learner(name, answer.json()["id"], answer.json()["token"])

    async def report(self, learner: Learner, number: int) -> None:
        """It reports back, as after a restart of its own."""
        answer = await self.call("POST", "/v1/learners", learner, json={"name": learner.name})
        assert (answer.status_code, answer.json()["id"]) == (200, learner.id)

    async def poll(self, learner: Learner, number: int = 0, wait: float = 0) -> None:
        """Ask for a task: never one that was answered, never a second one for the same."""
        answer = await self.call("GET", f"/v1/learners/{learner.id}/task", learner, params={"wait": wait})
        assert answer.status_code in (200, 204), answer.text
        if answer.status_code == 200:
            task = answer.json()
            assert task["id"] not in self.receipts, "an acknowledged result is asked for again"
            assert task["id"] not in self.refused, "a result that was refused is asked for again"
            asked = self.asked.setdefault((learner.id, task["run_id"], task["round"], task["kind"]), task["id"])
            assert asked == task["id"], "a learner has two tasks for the same"
            if learner.task is not None and learner.task["id"] != task["id"]:
                learner.before.append(learner.task)
            learner.task = task

    async def all(self, learner: Learner, number: int) -> None:
        """Everybody polls, then everybody answers, this one first; and once more."""
        names = [learner.name, *sorted(self.learners.keys() - {learner.name}, reverse=bool(number % 2))]
        for _ in range(AT_A_TIME):
            for name in names:
                await self.poll(self.learners[name])
            for name in names:
                if (task := self.learners[name].task) and not self.is_done(task):
                    await self.put(self.learners[name], task)

    async def work(self, learner: Learner, number: int = 0) -> None:
        """Poll and answer while there is something to do."""
        for _ in range(AT_A_TIME):
            await self.poll(learner)
            if learner.task is None or self.is_done(learner.task):
                return
            await self.put(learner, learner.task)

    async def send(self, learner: Learner, number: int) -> None:
        """The result of its task, which may have been sent before or be too late."""
        if learner.task:
            await self.put(learner, learner.task)

    async def again(self, learner: Learner, number: int) -> None:
        """A result five times at once."""
        if learner.task:
            task = learner.task
            await asyncio.gather(*(self.put(learner, task) for _ in range(5)))

    async def late(self, learner: Learner, number: int) -> None:
        """The result of a task of before."""
        if learner.before:
            await self.put(learner, learner.before[-1 - number % len(learner.before)])

    async def other(self, learner: Learner, number: int) -> None:
        """Another result than the one that was taken is refused."""
        if learner.task and learner.task["id"] in self.receipts:
            problem(await self.send_result(learner, learner.task, 0.5), 409, "different-body")
            self.seen["other bodies"] += 1

    async def fail(self, learner: Learner, number: int) -> None:
        """It could not do its task; said after its result, that changes nothing."""
        if learner.task:
            path = f"/v1/tasks/{learner.task['id']}/failure"
            answer = await self.call("POST", path, learner, json={"error": "no"})
            assert answer.status_code in (204, 409, 410), answer.text
            if learner.task["id"] not in self.receipts:
                self.refused.add(learner.task["id"])

    async def leave(self, learner: Learner, number: int) -> None:
        """It leaves, and is forgotten: what it sends after that is nobody's."""
        if len(self.learners) > 1:
            assert (await self.call("DELETE", f"/v1/learners/{learner.id}", learner)).status_code == 204
            del self.learners[learner.name]
            if learner.task and not self.is_done(learner.task):
                problem(await self.send_result(learner, learner.task), 401, "unauthenticated")
                self.refused.add(learner.task["id"])

    async def stop(self, learner: Learner, number: int) -> None:
        """An operator stops the run."""
        assert (await self.call("POST", f"/v1/runs/{self.runs[-1]}/stop")).status_code == 202

    async def kill(self, learner: Learner, number: int) -> None:
        """kill -9 while the learner answers, at once or some milliseconds later, or right after it was told that its
        result is taken; it sends it again to the next process."""
        sent = [learner.task] if learner.task and not self.is_done(learner.task) else []
        answers = [asyncio.create_task(self.put(learner, task)) for task in sent]
        if answers and number > 6:
            await asyncio.wait(answers)
        else:
            await asyncio.sleep(number / 1000)
        await self.controller.kill()
        self.seen["kills"] += 1
        for answer in answers:
            try:
                await answer
            except httpx.HTTPError:
                self.seen["lost answers"] += 1
        assert await self.controller.start(), self.controller.tail()
        for task in sent:
            await self.put(learner, task)

    # ---- results
    def is_done(self, task: dict[str, Any]) -> bool:
        """Whether it was answered for good."""
        return task["id"] in self.receipts or task["id"] in self.refused

    def value(self, name: str, run: str, number: int) -> float:
        """What the learner trains to in that round."""
        return MARKS[name] + 8 * (100 * self.runs.index(run) + number)

    async def send_result(self, learner: Learner, task: dict[str, Any], more: float = 0.0) -> httpx.Response:
        """Send its result, or with `more` another one."""
        value = self.value(learner.name, task["run_id"], task["round"]) + more
        if task["kind"] == "evaluate":
            body, media = json.dumps({"metrics": {"accuracy": value}}).encode(), "application/json"
        else:
            body, media = document(*weights(value)), MSGPACK
        path = f"/v1/tasks/{task['id']}/result"
        return await self.call("PUT", path, learner, content=body, headers={"Content-Type": media})

    async def put(self, learner: Learner, task: dict[str, Any]) -> None:
        """Send its result: it is taken once, then gets that receipt, or is refused for ever."""
        known = task["id"] in self.receipts
        answer = await self.send_result(learner, task)
        if answer.status_code in (200, 201):
            receipt = self.receipts.setdefault(task["id"], answer.json())
            assert answer.json() == receipt, "a duplicate gets another receipt"
            told = (receipt["task_id"], receipt["kind"], receipt["run_id"], receipt["round"], receipt["learner"])
            assert told == (task["id"], task["kind"], task["run_id"], task["round"], learner.name)
        else:
            assert answer.status_code in (409, 410), answer.text
            assert not known, "a result that was acknowledged is refused"
            self.refused.add(task["id"])
            self.seen["late"] += 1
        if answer.status_code == 201:
            assert not known, "a duplicate is taken as new"
            assert task["id"] not in self.first, "a result is taken twice"
            self.first.add(task["id"])
        self.seen["duplicates"] += answer.status_code == 200

    def acknowledged(self, kind: str, run: str, number: int) -> list[str]:
        """Whose results were."""
        wanted = (kind, run, number)
        return sorted(
            one["learner"] for one in self.receipts.values() if (one["kind"], one["run_id"], one["round"]) == wanted
        )

    def mean(self, names: list[str], run: str, number: int) -> float:
        """What they train to in that round, on average."""
        return sum(self.value(name, run, number) for name in names) / len(names)

    # ---- what must hold after every step
    async def check(self, run: str) -> None:
        """Tasks, rounds, models and events agree with what was acknowledged; after an end the next run is started."""
        results, rounds = await self.get(f"/v1/runs/{run}/results"), await self.get(f"/v1/runs/{run}/rounds")
        self.check_tasks(run, {one["id"]: one for one in results["tasks"]}, len(results["tasks"]))
        for one in rounds:
            await self.check_round(run, one)
        known = [number for of, number in (*self.made, *self.closed) if of == run]
        assert [one["round"] for one in rounds] == [*range(1, len(rounds) + 1)], "a round is missing, or there twice"
        assert len(rounds) >= max(known, default=0), "a round went back"
        assert {number for of, number in self.closed if of == run} >= {one["round"] for one in results["rounds"]}
        self.check_events()
        if results["run"]["state"] in TERMINAL and run == self.runs[-1]:
            assert results["run"]["state"] == "stopped" or not rounds[-1]["completed"], results["run"]["reason"]
            await self.start()

    def check_tasks(self, run: str, tasks: dict[str, dict[str, Any]], count: int) -> None:
        """What was acknowledged is there, once, and nothing else is."""
        assert len(tasks) == count, "a task is there twice"
        taken = {key for key, one in tasks.items() if one["state"] == "accepted"}
        acknowledged = {key for key, one in self.receipts.items() if one["run_id"] == run}
        assert acknowledged <= taken, "an acknowledged result is lost"
        assert taken <= acknowledged, "a result counts that nobody was told of"
        refused = [tasks[key]["state"] for key in self.refused & tasks.keys()]
        assert set(refused) <= {"failed", "void"}, "a result that was refused counts"
        asked = {task for (_, of, _, _), task in self.asked.items() if of == run}
        assert asked <= tasks.keys(), "a task is lost"

    async def check_round(self, run: str, one: dict[str, Any]) -> None:
        """Who is in it is who was acknowledged; its model and its score are the means of their marks, and stay."""
        key, members = (run, one["round"]), one["completed"]
        assert sorted(members) == self.acknowledged("train", *key), "other updates count than those acknowledged"
        if one["model"] is not None:
            if key not in self.made:
                body = (await self.call("GET", f"/v1/models/{one['model']}")).content
                values = [value for array in arrays_of(body) for value in array]
                assert values == pytest.approx([self.mean(members, *key)] * len(values), abs=CLOSE, rel=0), members
            assert self.made.setdefault(key, (one["model"], members)) == (one["model"], members), "a model changed"
        if one["state"] == "closed":
            scored = self.acknowledged("evaluate", *key)
            assert sorted(one["evaluation_metrics"]["learners"]) == scored, "other scores than those acknowledged"
            if scored:
                score = one["evaluation_metrics"]["combined"]["accuracy"]
                assert score == pytest.approx(self.mean(scored, *key), abs=CLOSE, rel=0)
            if key not in self.closed and one["model"] is not None:
                self.seen["closed rounds"] += 1
                self.seen["rounds of all"] += len(members) == len(MARKS)
            assert self.closed.setdefault(key, one) == one, "a closed round changed"

    def check_events(self) -> None:
        """Their numbers only go up, and each result was taken once."""
        numbers = [one["id"] for one in self.events]
        assert numbers == sorted(set(numbers)), "the number of an event was used before"
        taken = Counter(one["data"]["task"] for one in self.events if one["kind"] == "update-accepted")
        assert set(taken.values()) <= {1}, "a result was taken twice"


@contextlib.asynccontextmanager
async def driven_controller(seen: Counter[str]) -> AsyncIterator[Driven]:
    """A controller of its own with all three learners in it and a run begun, its log followed."""
    with tempfile.TemporaryDirectory(prefix="metis-test-") as folder:
        driven = Driven(Path(folder), seen)
        try:
            assert await driven.controller.start(), driven.controller.tail()
            following = asyncio.create_task(driven.follow())
            for name in MARKS:
                await driven.enrol(name)
            await driven.start()
            yield driven
            assert not following.done(), following
            following.cancel()
        finally:
            driven.controller.close()
            await driven.http.aclose()
