"""The agent and its membership, against the real app: it enrols, comes back, waits, and leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from controller_api.settings import Settings
from learner_agent.agent import Agent, LearnerAtWork, poll
from learner_agent.agent.state_file import Enrolment, Identity, StateFile
from services import messages as m
from services.errors import DifferentBody, NameTaken, Unauthenticated
from services.rest import Client
from services.rest.backoff import FullJitter
from tests.conftest import URL, InProcess, in_process, until
from tests.learner_agent.agents import ONE_ROUND, AddsOne, Line, agent_of, run_to_end, running

OPERATOR = "operator-token-operator"
ENROLL = "enroll-token-enroll-token"


@asynccontextmanager
async def controller_in(folder: Path, **settings: Any) -> AsyncIterator[InProcess]:
    """A controller whose state is in this folder."""
    made = Settings(data_dir=folder, model_store="InMemory", log_level="error", **settings)
    async with in_process(made) as controller:
        yield controller


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[InProcess]:
    """An open one."""
    async with controller_in(tmp_path / "controller") as made:
        yield made


async def names(controller: InProcess) -> list[str]:
    """Of the learners that are here."""
    return [one["name"] for one in (await controller.http.get("/v1/learners")).json()]


# ---- coming
async def test_a_learner_may_be_started_before_the_controller(tmp_path: Path) -> None:
    """It waits, saying so, and takes part as soon as there is one."""
    line = Line(None)
    learner = AddsOne()
    async with running(agent_of(learner, line)) as (task,):

        async def tried_twice() -> bool:
            return line.count("POST", "/v1/learners") >= 2

        await until(tried_twice)
        assert not task.done()
        async with controller_in(tmp_path / "late") as controller:
            line.app = controller.app
            results = await run_to_end(controller, ONE_ROUND)
            assert results.rounds[0].completed == ["anna"]
            task.cancel()
            await asyncio.wait([task])


async def test_a_wrong_enrolment_token_ends_the_agent(tmp_path: Path) -> None:
    """Waiting would not help: it says so at once."""
    async with controller_in(tmp_path, operator_token=OPERATOR, enroll_token=ENROLL) as controller:
        agent = agent_of(AddsOne(), Line(controller.app), token="not-the-enrolment-token")
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(agent.run(), 5)


async def test_with_tokens_a_run_is_done_under_the_learners_own(tmp_path: Path) -> None:
    """The enrolment token is for enrolling only."""
    async with controller_in(tmp_path, operator_token=OPERATOR, enroll_token=ENROLL) as controller:
        agent = agent_of(AddsOne(), Line(controller.app), token=ENROLL)
        async with running(agent):
            controller.http.headers["Authorization"] = f"Bearer {OPERATOR}"
            await controller.client(OPERATOR).start_run(ONE_ROUND)

            async def completed() -> bool:
                return (await controller.client(OPERATOR).run()).state == "completed"

            await until(completed)


# ---- coming back
async def test_a_restarted_learner_is_the_same_one(controller: InProcess, tmp_path: Path) -> None:
    """Ended without leaving, its next process has the same id, and its task is offered again."""
    line, gate = Line(controller.app), threading.Event()
    first = StateFile(tmp_path, "anna", URL)
    agent = agent_of(AddsOne(during=lambda config: gate.wait(20)), line, state=first)
    work = asyncio.create_task(agent.run())
    await controller.client().start_run(ONE_ROUND)

    async def training() -> Any:
        learners = await controller.client().learners()
        return learners and agent.me and controller.app.state.runtime.federation.active.round == 1 and learners[0].id

    before = await until(training)
    line.app = None  # the process dies: nothing it says gets through
    work.cancel()
    await asyncio.wait([work])
    gate.set()
    first.close()

    again = StateFile(tmp_path, "anna", URL)
    async with running(agent_of(AddsOne(), Line(controller.app), state=again)):

        async def completed() -> bool:
            return (await controller.client().run()).state == "completed"

        await until(completed)
        learners = await controller.client().learners()
    assert [(one.id, one.name) for one in learners] == [(before, "anna")]


async def test_a_controller_that_lost_its_state_gets_its_learners_back(tmp_path: Path) -> None:
    """Another controller at the same address: the agent's token is unknown there, it enrols again and takes part."""
    state = StateFile(tmp_path, "anna", URL)
    line = Line(None)
    async with running(agent_of(AddsOne(), line, state=state)) as (task,):
        ids = []
        for number in (1, 2):
            async with controller_in(tmp_path / f"controller-{number}") as controller:
                line.app = controller.app
                results = await run_to_end(controller, ONE_ROUND)
                assert results.rounds[0].completed == ["anna"]
                ids.append(results.learners[0].id)
                kept = state.load()
                assert isinstance(kept, Identity)
                assert kept.learner_id == ids[-1]
                line.app = None
        assert len(set(ids)) == 2
        assert not task.done()


async def test_enrolling_again_and_again_is_slowed_down(controller: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that enrols a learner and then does not know it is not asked in a tight loop."""
    waits: list[int] = []

    def seconds(self: FullJitter, attempt: int) -> float:
        waits.append(attempt)
        return 0.0

    monkeypatch.setattr(FullJitter, "seconds", seconds)
    line = Line(controller.app)

    async def forget(request: Any) -> None:
        if request.url.path.endswith("/task") and len(waits) < 3:
            roster = controller.app.state.runtime.federation.roster
            roster.remove(request.url.path.split("/")[3])

    async def forgotten() -> bool:
        return len(waits) >= 3

    line.before = forget
    async with running(agent_of(AddsOne(), line)):
        await until(forgotten)  # no run meanwhile: it would fail with the members that are taken from under it
        await run_to_end(controller, ONE_ROUND)
    assert waits == [1, 2, 3]


# ---- an answer that is lost
class Keys:
    """What enrolments were asked for: their keys, and what was in the state file when they were sent."""

    def __init__(self, line: Line, state: StateFile | None = None) -> None:
        self.sent: list[str] = []
        self.kept: list[Identity | Enrolment | None] = []
        self._state = state
        line.before = self._note

    async def _note(self, request: httpx.Request) -> None:
        if (request.method, request.url.path) == ("POST", "/v1/learners"):
            self.sent.append(request.headers["Idempotency-Key"])
            self.kept.append(self._state.load() if self._state else None)


async def killed_before_the_answer(controller: InProcess, state: StateFile, name: str = "anna") -> tuple[str, str]:
    """An agent that is a member and has not heard of it, gone without a word: the member's id, and the key sent."""
    line = Line(controller.app)
    keys = Keys(line, state)

    async def forever(request: httpx.Request, response: httpx.Response) -> None:
        line.app = None
        await asyncio.Event().wait()

    line.after = forever
    work = asyncio.create_task(agent_of(AddsOne(), line, name, state=state).run())
    await until(lambda: names(controller))
    work.cancel()
    await asyncio.wait([work], timeout=5)
    state.close()
    (member,) = await controller.client().learners()
    return member.id, keys.sent[0]


async def test_the_key_of_an_enrolment_is_kept_before_it_is_sent(controller: InProcess, tmp_path: Path) -> None:
    """And the identity in its place when there is one."""
    state, line = StateFile(tmp_path, "anna", URL), Line(controller.app)
    keys = Keys(line, state)
    async with running(agent_of(AddsOne(), line, state=state)):
        await run_to_end(controller, ONE_ROUND)
        (key,) = keys.sent
        assert keys.kept == [Enrolment(key)]
        assert isinstance(state.load(), Identity)


async def test_an_agent_that_never_heard_it_is_a_member_is_the_same_one_after_a_restart(
    controller: InProcess, tmp_path: Path
) -> None:
    """It asks under the key that it kept, says what it is like now, and needs to wait for no lease."""
    before, key = await killed_before_the_answer(controller, StateFile(tmp_path, "anna", URL))
    state, line = StateFile(tmp_path, "anna", URL), Line(controller.app)
    assert state.load() == Enrolment(key)
    keys = Keys(line, state)
    request = m.JoinRequest(name="anna", labels={"site": "north"})
    agent = Agent(LearnerAtWork(AddsOne()), Client(URL, transport=line), poll, request, state=state, name_patience_s=0)
    async with running(agent):
        await run_to_end(controller, ONE_ROUND)
        (member,) = await controller.client().learners()
        assert (member.id, member.labels) == (before, {"site": "north"})
        assert keys.sent == [key]
        found = state.load()
        assert isinstance(found, Identity)
        assert found.learner_id == before


async def test_a_kept_key_that_the_controller_does_not_know_enrols(controller: InProcess, tmp_path: Path) -> None:
    """It was restarted without its state, or an operator deleted the learner."""
    before, key = await killed_before_the_answer(controller, StateFile(tmp_path, "anna", URL))
    await controller.client().leave(before)
    state, line = StateFile(tmp_path, "anna", URL), Line(controller.app)
    keys = Keys(line, state)
    async with running(agent_of(AddsOne(), line, state=state)):
        await run_to_end(controller, ONE_ROUND)
        (member,) = await controller.client().learners()
        assert member.id != before
        assert keys.sent == [key]


async def test_a_kept_key_that_is_refused_is_given_up(controller: InProcess, tmp_path: Path) -> None:
    """A controller says that the key was for something else: another one is made, once."""
    state = StateFile(tmp_path, "anna", URL)
    state.save(Enrolment("k" * 32))
    line = Line(controller.app)
    keys = Keys(line, state)

    def refused(request: httpx.Request) -> httpx.Response:
        problem = {"type": "/errors/different-body", "title": "", "status": 409, "detail": "another request"}
        return httpx.Response(409, json=problem, headers={"Content-Type": "application/problem+json"}, request=request)

    def refuses(request: httpx.Request) -> httpx.Response | None:
        return refused(request) if request.method == "POST" and len(keys.sent) == 1 else None

    line.instead = refuses
    async with running(agent_of(AddsOne(), line, state=state)):
        await run_to_end(controller, ONE_ROUND)
    assert keys.sent[0] == "k" * 32
    assert keys.kept == [Enrolment(key) for key in keys.sent]
    assert len(set(keys.sent)) == 2
    line.instead = refused
    with pytest.raises(DifferentBody):
        await asyncio.wait_for(agent_of(AddsOne(), line, "bert").run(), 5)


async def test_two_agents_of_one_name_never_share_a_key(controller: InProcess, tmp_path: Path) -> None:
    """Even in one folder: the second waits for the name, under one key of its own that it keeps to itself."""
    first, second = StateFile(tmp_path, "anna", URL), StateFile(tmp_path, "anna", URL)
    line, other = Line(controller.app), Line(controller.app)
    keys, others = Keys(line, first), Keys(other, first)
    async with running(agent_of(AddsOne(), line, state=first)):
        await until(lambda: names(controller))
        with pytest.raises(NameTaken):
            await asyncio.wait_for(agent_of(AddsOne(), other, state=second, name_patience_s=0.2).run(), 20)
        assert len(others.sent) > 1
        assert len({*keys.sent, *others.sent}) == 2
        assert all(isinstance(kept, Identity) for kept in others.kept)


# ---- a name in use
async def test_a_name_in_use_is_waited_for_and_then_given_up(controller: InProcess) -> None:
    """Its holder lives: the second agent waits as long as it was told, saying so, and ends with the reason."""
    line = Line(controller.app)
    async with running(agent_of(AddsOne(), line)):
        await until(lambda: names(controller))
        with (
            capture_logs() as logs,
            pytest.raises(NameTaken, match="'anna' is the name of another learner"),
        ):
            await asyncio.wait_for(agent_of(AddsOne(), line, name_patience_s=0.2).run(), 20)
        assert await names(controller) == ["anna"]
    waits = [entry for entry in logs if "the name is in use" in entry["event"]]
    assert waits
    assert "choose another name" in waits[0]["why"]


async def test_a_name_is_taken_over_when_its_holder_is_lost(controller: InProcess) -> None:
    """The predecessor died with its state: its lease ends, and the learner of its name comes in."""
    await controller.http.post("/v1/learners", json={"name": "anna"})
    await controller.client().start_run(ONE_ROUND | {"min_learners": 2, "schedule": {"lease_s": 0.5}})
    line = Line(controller.app)
    async with running(agent_of(AddsOne(), line), agent_of(AddsOne(), line, "bert")):

        async def completed() -> bool:
            return (await controller.client().run()).state == "completed"

        await until(completed)


# ---- going
async def test_a_cancelled_agent_leaves_and_hands_its_task_back(controller: InProcess, tmp_path: Path) -> None:
    """In mid-training: the round closes without it at once, and its identity is forgotten."""
    gate, state = threading.Event(), StateFile(tmp_path, "anna", URL)
    line = Line(controller.app)
    learner = AddsOne(during=lambda config: gate.wait(20))
    leaving = agent_of(learner, line, state=state)
    async with running(agent_of(AddsOne(), line, "bert")):
        work = asyncio.create_task(leaving.run())
        await controller.client().start_run(ONE_ROUND | {"min_learners": 2})

        async def training() -> bool:
            return "train" in learner.calls

        await until(training)
        work.cancel()
        await asyncio.wait([work], timeout=5)
        assert work.cancelled()

        async def completed() -> bool:
            return (await controller.client().run()).state == "completed"

        await until(completed, 5)
        (only,) = await controller.client().rounds()
    gate.set()
    assert (only.completed, only.failed) == (["bert"], {"anna": "anna left"})
    assert state.load() is None


async def test_who_has_not_heard_yet_that_it_is_a_member_leaves_too(controller: InProcess) -> None:
    """Asked to end while the answer to its enrolment is under way, it hears that first: its name is free afterwards."""
    line, answer = Line(controller.app), asyncio.Event()

    async def slowly(request: httpx.Request, joined: httpx.Response) -> None:
        if request.method == "POST":
            await answer.wait()

    line.after = slowly
    work = asyncio.create_task(agent_of(AddsOne(), line).run())
    await until(lambda: names(controller))
    work.cancel()
    await asyncio.sleep(0.05)
    answer.set()
    await asyncio.wait([work], timeout=5)
    assert work.cancelled()
    assert await names(controller) == []


async def test_an_agent_that_waits_for_its_controller_ends_soon() -> None:
    """There is nobody to leave."""
    work = asyncio.create_task(agent_of(AddsOne(), Line(None)).run())
    await asyncio.sleep(0.05)
    work.cancel()
    done, _ = await asyncio.wait([work], timeout=3)
    assert done == {work}


async def test_an_agent_that_cannot_say_goodbye_keeps_its_identity(controller: InProcess, tmp_path: Path) -> None:
    """The controller is away when it leaves: started again it is the same learner, and need not wait for its lease."""
    state, line = StateFile(tmp_path, "anna", URL), Line(controller.app)
    async with running(agent_of(AddsOne(), line, state=state)) as (task,):
        await until(lambda: names(controller))
        line.app = None
        task.cancel()
        await asyncio.wait([task], timeout=5)
    assert isinstance(state.load(), Identity)


async def test_the_end_of_the_federation_ends_the_agent(controller: InProcess, tmp_path: Path) -> None:
    """POST /v1/shutdown: run() returns, and the identity is forgotten."""
    state = StateFile(tmp_path, "anna", URL)
    async with running(agent_of(AddsOne(), Line(controller.app), state=state)) as (task,):
        await until(lambda: names(controller))
        await controller.client().shutdown()
        await asyncio.wait_for(task, 5)
    assert state.load() is None
