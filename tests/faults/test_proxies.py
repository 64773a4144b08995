"""What a proxy in between refuses by itself is told apart from what the controller refuses, gone round where there is
another way, and else the failure of its task, which says what to set where."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from driver_cli import exits
from learner_agent.agent import Agent, LearnerAtWork, poll
from services import messages as m
from services.errors import ProxyRefused
from services.rest import Client
from services.weights import wire
from tests.conftest import Process, Served, free_port, until
from tests.docs.pages import all_fences
from tests.e2e.adding_learner import Adds
from tests.faults.federation import retry_quickly
from tests.faults.gateway import NAME, Call, Gateway, Judge, Page

VALUES = 640_000  # float64: 5 MB
MEGABYTE = 1 << 20
NAMES = ("anna", "bert")
MEAN = 5.5  # of 1 and 10, which they add
RUN: dict[str, Any] = {
    "min_learners": 2,
    "scaling_factor": "NumParticipants",
    "schedule": {"min_updates": 2, "max_failed_rounds": 1},
    "evaluation": {"every": 0},
    "termination": {"federation_rounds": 2},
}
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
NO_PATCH = (403, 405, 501)


def at_most(size: int) -> Judge:
    """413 for what is longer."""
    return lambda call: 413 if call.length > size else None


def both(*judges: Judge) -> Judge:
    """The first refusal of several."""

    def judge(call: Call) -> Page | int | None:
        return next((found for one in judges if (found := one(call)) is not None), None)

    return judge


def never(status: int | Page, *methods: str, what: str = "result") -> Judge:
    """Refuses methods of a path."""
    return lambda call: status if call.what == what and call.method in methods else None


def initial() -> list[bytes]:
    """The first model."""
    return [b"".join(wire.encode(wire.name_tensors([np.zeros(VALUES)], ["counted"])))]


@dataclass
class Behind:
    """Two agents behind a gateway, and an operator who reaches the controller directly."""

    gateway: Gateway
    operator: Client
    agents: list[asyncio.Task[None]]

    async def run(self, **config: Any) -> m.Results:
        """A run to its end, from weights that the operator put; all agents are still at work."""
        digest = await self.operator.put_model(initial())
        await self.operator.start_run({**RUN, "initial_model": digest, **config})

        async def over() -> bool:
            return (await self.operator.run()).state in m.TERMINAL

        await until(over, 90)
        assert not any(one.done() for one in self.agents)
        return await self.operator.results()

    async def completed(self) -> None:
        """A run of two rounds, of whose model nothing is missing."""
        results = await self.run()
        assert (results.run.state, [one.completed for one in results.rounds]) == ("completed", [list(NAMES)] * 2)
        model = wire.decode(await self.operator.run_model()).arrays[0]
        assert len(model) == VALUES
        assert (model == 2 * MEAN).all()

    async def failed(self) -> str:
        """A run whose first round fails; what both learners said, which is of one line."""
        results = await self.run()
        assert results.run.state == "failed"
        reasons = {one.reason for one in results.tasks if one.kind == "train" and one.state == "failed"}
        assert len([one for one in results.tasks if one.state == "failed"]) == 2
        said = sorted(str(one) for one in reasons)
        assert all(one.startswith("proxy-refused: ") and "\n" not in one for one in said)
        return said[0]


@asynccontextmanager
async def behind(served: Served, *judges: Judge) -> AsyncIterator[Behind]:
    """See Behind."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        gateway = await stack.enter_async_context(Gateway(served.port))
        gateway.judge = both(*judges)
        operator = await stack.enter_async_context(Client(served.url))
        agents = []
        for share, name in enumerate(NAMES):
            client = await stack.enter_async_context(Client(gateway.url, patience_s=None))
            work = LearnerAtWork(Adds(10.0**share, VALUES))
            agents.append(group.create_task(Agent(work, client, poll, m.JoinRequest(name=name)).run()))
        try:
            yield Behind(gateway, operator, agents)
        finally:
            gateway.judge = lambda call: None
            for one in agents:
                one.cancel()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetitions are a third of a second apart."""
    retry_quickly(monkeypatch)


# ---- another way
async def test_what_is_too_large_goes_up_in_parts(served: Served) -> None:
    """5 MB through a proxy that takes 1 MB: parts are halved until they pass, and their size is remembered."""
    async with behind(served, at_most(MEGABYTE)) as there:
        await there.completed()
        assert there.gateway.refused == {("PUT", "result", 413): 2, ("PATCH", "result", 413): 4}
        assert MEGABYTE // 2 < there.gateway.largest <= MEGABYTE
        assert there.gateway.answers["PATCH", "result", 201] == 4


@pytest.mark.parametrize("status", NO_PATCH)
async def test_where_patch_is_refused_the_whole_is_put(served: Served, status: int) -> None:
    """Every upload of the first round is cut in its midst: the rest is not taken, so all of it is sent again."""
    async with behind(served, never(status, "PATCH")) as there:
        there.gateway.cuts.extend([3 * MEGABYTE] * 2)
        await there.completed()
        assert not there.gateway.cuts
        assert there.gateway.refused == {("PATCH", "result", status): 6}
        assert there.gateway.answers["PUT", "result", 201] == 4


async def test_where_put_is_refused_the_whole_is_patched(served: Served) -> None:
    """The other way round."""
    async with behind(served, never(405, "PUT")) as there:
        await there.completed()
        assert there.gateway.refused == {("PUT", "result", 405): 6}
        assert there.gateway.answers["PATCH", "result", 201] == 4


async def test_parts_that_are_cut_go_on_where_they_were(served: Served) -> None:
    """Also where HEAD is refused: then from the beginning, and what was there is forgotten first."""
    async with behind(served, at_most(MEGABYTE)) as there:
        cuts = [None] * 4 + [MEGABYTE // 4] * 3
        there.gateway.cuts.extend(cuts)
        await there.completed()
        assert not there.gateway.cuts
        assert there.gateway.answers["HEAD", "result", 204] > 0
        there.gateway.judge = both(at_most(MEGABYTE), never(405, "HEAD"))
        there.gateway.cuts.extend(cuts)
        await there.completed()
        assert there.gateway.refused["HEAD", "result", 405] > 0
        assert there.gateway.answers["DELETE", "result", 204] > 0


async def test_parts_never_go_on_with_the_bytes_of_an_earlier_process(served: Served) -> None:
    """A learner died in its upload and trained again: what is there of the old update is not of the new one."""
    async with Gateway(served.port) as gateway, Client(gateway.url) as client, Client(served.url) as operator:
        member = await client.join(m.JoinRequest(name="anna"))
        digest = await operator.put_model(initial())
        await operator.start_run({**RUN, "min_learners": 1, "schedule": {}, "initial_model": digest})
        client.token = member.token
        task = await client.next_task(member.id, 5)
        assert task is not None
        new = wire.encode(wire.name_tensors([np.full(VALUES, 7.0)], ["counted"]), {}, {"num_training_examples": 1})
        size = sum(len(memoryview(part).cast("B")) for part in new)
        headers = {
            "Authorization": f"Bearer {member.token}",
            "Content-Type": "application/partial-upload",
            "Upload-Offset": "0",
            "Upload-Complete": "?0",
            "Upload-Length": str(size),
        }
        async with httpx.AsyncClient() as http:
            assert (await http.patch(task.result.url, content=bytes(MEGABYTE), headers=headers)).status_code == 204
        gateway.judge = at_most(MEGABYTE)
        assert (await client.submit(task, new)).size == size
        assert gateway.answers["DELETE", "result", 204] == 1

        async def made() -> bool:
            return bool((wire.decode(await operator.run_model()).arrays[0] == 7.0).all())

        await until(made)


# ---- no other way
@pytest.mark.parametrize("status", NO_PATCH)
async def test_what_is_refused_both_ways_is_the_tasks_failure(served: Served, status: int) -> None:
    """The failure says both statuses, who answered, and what to set; the learners go on, and once the proxy was mended
    so do their updates."""
    async with behind(served, at_most(MEGABYTE), never(status, "PATCH")) as there:
        said = await there.failed()
        assert f"was answered 413 by {NAME}, not by the controller" in said
        assert f"was answered {status} by {NAME}" in said
        assert "client_max_body_size" in said
        assert "let PATCH pass" in said
        assert there.gateway.refused == {
            ("PUT", "result", 413): 2,
            ("PATCH", "result", 413): 4,
            ("PATCH", "result", status): 6,
        }
        there.gateway.judge = lambda call: None
        await there.completed()


@pytest.mark.parametrize(
    ("status", "setting"),
    [
        (500, "proxy_request_buffering"),
        (502, "proxy_request_buffering"),
        (504, "proxy_read_timeout"),
        (408, "client_body_timeout"),
        (302, "its log says why"),
    ],
)
async def test_what_is_refused_again_and_again_is_the_tasks_failure(served: Served, status: int, setting: str) -> None:
    """The controller answers other calls meanwhile: each way is tried a few times, and then no more."""
    async with behind(served, never(status, "PUT", "PATCH")) as there:
        said = await there.failed()
        assert f"answered {status} by {NAME}" in said
        assert setting in said
        most = 8 if status in (502, 504) else 3
        assert there.gateway.refused == {("PUT", "result", status): 2 * most, ("PATCH", "result", status): 2 * most}
        there.gateway.judge = lambda call: None
        await there.completed()


@pytest.mark.parametrize("status", [403, 502])
async def test_a_model_that_is_refused_is_the_tasks_failure(served: Served, status: int) -> None:
    """A download has one way."""
    async with behind(served, lambda call: status if "/models/" in call.path else None) as there:
        assert f"GET {there.gateway.url}/v1/models/" in await there.failed()


async def test_scores_that_are_refused_are_the_tasks_failure(served: Served) -> None:
    """The updates count."""

    def not_json(call: Call) -> int | None:
        return 403 if call.method == "PUT" and call.length < MEGABYTE else None

    async with behind(served, not_json) as there:
        results = await there.run(evaluation={"every": 1})
        assert [one.completed for one in results.rounds] == [list(NAMES)] * 2
        scores = [one for one in results.tasks if one.kind == "evaluate"]
        assert {one.state for one in scores} == {"failed"}
        assert all("answered 403" in str(one.reason) for one in scores)


async def test_a_failure_that_is_refused_leaves_the_learner_at_work(served: Served) -> None:
    """Nobody hears of it: the round ends at its deadline, and the next run is as any."""
    refuses = (never(403, "PUT", "PATCH"), never(403, "POST", what="failure"))
    async with behind(served, *refuses) as there:
        results = await there.run(schedule={"min_updates": 2, "max_failed_rounds": 1, "round_deadline_s": 3})
        assert results.run.state == "failed"
        assert there.gateway.refused["POST", "failure", 403] >= 2
        there.gateway.judge = lambda call: None
        await there.completed()


async def test_a_driver_is_told_what_to_set(served: Served) -> None:
    """At once, with no word of another address."""
    async with Gateway(served.port) as gateway, Client(gateway.url, patience_s=60) as driver:
        gateway.judge = at_most(MEGABYTE)
        began = time.monotonic()
        with pytest.raises(ProxyRefused, match=r"answered 413 by gate/1.0.*client_max_body_size") as caught:
            await driver.put_model(initial())
        assert time.monotonic() - began < 20
        assert sum(gateway.refused.values()) == 1
        assert exits.explain(caught.value) == caught.value.detail
        assert exits.status_of(caught.value) == exits.FAILED


# ---- waiting
async def test_while_the_controller_is_away_nothing_is_given_up(served: Served) -> None:
    """A proxy that misses its controller refuses all calls, far more often than an upload may be refused."""
    async with behind(served) as there:
        passes, away = there.gateway.judge, asyncio.Event()

        def judge(call: Call) -> int | None:
            if call.what == "result":
                away.set()
            return 502 if away.is_set() else None

        there.gateway.judge = judge
        running = asyncio.create_task(there.completed())

        async def often() -> bool:
            return there.gateway.refused["PUT", "result", 502] + there.gateway.refused["HEAD", "result", 502] > 50

        await until(often, 60)
        assert not running.done()
        there.gateway.judge = passes
        await running
        results = await there.operator.results()
        assert {one.state for one in results.tasks} == {"accepted"}


@pytest.mark.parametrize(
    "page",
    [
        Page(403),
        Page(504),
        Page(302),
        Page(200, "<h1>we shall be back</h1>"),
        Page(401, '{"type": "about:blank", "detail": "sign in"}', "application/problem+json"),
    ],
    ids=lambda page: f"{page.status} {page.media_type}",
)
async def test_a_learner_whose_calls_are_answered_by_a_page_stays_one(served: Served, page: Page) -> None:
    """Polls, models, results and failures: each is made again, and no page is taken for an answer."""
    async with behind(served) as there:
        told: set[tuple[str, str]] = set()

        def once(call: Call) -> Page | None:
            if call.what in ("learners", "healthz") or (call.method, call.path) in told:
                return None
            told.add((call.method, call.path))
            return page

        there.gateway.judge = once
        await there.completed()
        assert {method for method, _ in told} >= {"GET", "PUT"}
        results = await there.operator.results()
        assert {one.state for one in results.tasks} == {"accepted"}


# ---- nginx itself
@dataclass
class Nginx:
    """An nginx before a controller; `log` has a line an answer: method, path, status."""

    folder: Path
    port: int
    target: int
    child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, with a path of its own before the controller's."""
        return f"http://127.0.0.1:{self.port}/federation"

    def serve(self, *lines: str) -> None:
        """Start it with these lines in the location, or have it take them from now on."""
        proxied = "proxy_pass http://127.0.0.1:8080/; proxy_http_version 1.1; proxy_set_header Connection '';"
        self.locate(f"location /federation/ {{ {proxied} {' '.join(lines)} }}")

    def locate(self, location: str) -> None:
        """The same with a whole location, to a controller on port 8080."""
        (self.folder / "nginx.conf").write_text(
            f"""
{"user root root;" if os.getuid() == 0 else ""} daemon off; worker_processes 1;
pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;
events {{ }}
http {{
    log_format short "$request_method $uri $status";
    access_log {self.folder}/access.log short;
    client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/f; uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
    server {{
        listen 127.0.0.1:{self.port};
        {location.replace(":8080/", f":{self.target}/")}
    }}
}}
"""
        )
        command = [str(NGINX), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        if self.child is None:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return
        subprocess.run([*command, "-s", "reload"], check=True, timeout=20, stderr=subprocess.DEVNULL)

    def answers(self, method: str, status: int) -> int:
        """How many results by this method were answered so."""
        lines = (self.folder / "access.log").read_text().splitlines()
        return sum(one.startswith(f"{method} ") and one.endswith(f"/result {status}") for one in lines)


@pytest.fixture
def nginx(served: Served, tmp_path: Path) -> Iterator[Nginx]:
    """See Nginx."""
    if NGINX is None:
        pytest.skip("NOT TESTED: nginx itself. It needs nginx (Debian, Ubuntu: apt-get install nginx-light).")
    folder = tmp_path / "nginx"
    folder.mkdir()
    server = Nginx(folder, free_port(), served.port)
    yield server
    if server.child is not None:
        server.child.terminate()
        server.child.wait(20)


def processes(start: Callable[..., Process], url: str) -> list[Process]:
    """The learners as processes."""
    what = ("-m", "learner_agent", "--controller", url, "--learner", "tests.e2e.adding_learner:make")
    here = {"VALUES": str(VALUES), "PYTHONPATH": os.getcwd()}
    return [start(name, *what, "--name", name, SHARE=str(share), **here) for share, name in enumerate(NAMES)]


async def over(operator: Client) -> m.Results:
    """The results of the run, once it is over."""

    async def ended() -> bool:
        return (await operator.run()).state in m.TERMINAL

    await until(ended, 90)
    return await operator.results()


@pytest.mark.parametrize("buffering", ["on", "off"])
async def test_a_round_through_nginx_in_parts(
    start: Callable[..., Process], served: Served, nginx: Nginx, buffering: str
) -> None:
    """`client_max_body_size 1m` and a model of 5 MB, from the learners' own first weights on."""
    nginx.serve("client_max_body_size 1m;", f"proxy_request_buffering {buffering};")
    learners = processes(start, nginx.url)
    async with Client(served.url) as operator:
        await operator.start_run(RUN)
        results = await over(operator)
        model = wire.decode(await operator.run_model()).arrays[0]
    assert (results.run.state, [one.completed for one in results.rounds]) == ("completed", [list(NAMES)] * 2)
    assert (model == 2 * MEAN).all()
    assert nginx.answers("PUT", 413) == 2
    assert nginx.answers("PATCH", 413) == 4
    assert all(one.child.poll() is None for one in learners)


async def test_nginx_as_the_page_says(start: Callable[..., Process], served: Served, nginx: Nginx) -> None:
    """docs/deploying.md: results go up whole, models come down whole, and events come as they happen."""
    (location,) = [one.body for one in all_fences() if one.language == "nginx"]
    nginx.locate(location)
    learners = processes(start, nginx.url)
    async with Client(nginx.url) as operator:
        events = asyncio.ensure_future(anext(operator.events(0)))
        await operator.start_run(RUN)
        assert (await asyncio.wait_for(events, 20)).id == 1
        assert (await over(operator)).run.state == "completed"
        assert (wire.decode(await operator.run_model()).arrays[0] == 2 * MEAN).all()
    assert nginx.answers("PUT", 201) == 5
    assert "PATCH" not in (nginx.folder / "access.log").read_text()
    assert all(one.child.poll() is None for one in learners)


async def test_nginx_that_takes_neither_is_named(start: Callable[..., Process], served: Served, nginx: Nginx) -> None:
    """`limit_except` without PATCH beside the limit: the failure says what to set; reloaded without, all is well."""
    nginx.serve("client_max_body_size 1m;", "limit_except GET POST PUT DELETE { deny all; }")
    learners = processes(start, nginx.url)
    async with Client(served.url) as operator:
        digest = await operator.put_model(initial())
        await operator.start_run({**RUN, "initial_model": digest})
        results = await over(operator)
        assert results.run.state == "failed"
        said = [str(one.reason) for one in results.tasks]
        assert all("answered 413 by nginx" in one and "client_max_body_size" in one for one in said)
        assert all("answered 403 by nginx" in one and "limit_except" in one for one in said)
        nginx.serve("client_max_body_size 2g;")
        await operator.start_run({**RUN, "initial_model": digest})
        assert (await over(operator)).run.state == "completed"
    assert all(one.child.poll() is None for one in learners)
    assert "client_max_body_size" in learners[0].log.read_text()


async def test_nginx_without_its_controller_is_waited_for(
    start: Callable[..., Process], served: Served, nginx: Nginx
) -> None:
    """Learners that come while nginx answers 502 enrol once it does not."""
    nginx.target = free_port()
    nginx.serve()
    learners = processes(start, nginx.url)

    async def said() -> bool:
        return all("was answered 502 by nginx" in one.log.read_text() for one in learners)

    await until(said, 30)
    nginx.target = served.port
    nginx.serve()
    async with Client(served.url) as operator:

        async def enrolled() -> bool:
            return len(await operator.learners()) == len(NAMES)

        await until(enrolled, 60)
    assert all(one.child.poll() is None for one in learners)
