"""The learner in webhook mode: what it believes, and how it comes to its tasks."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from learner_agent import Learner
from learner_agent.__main__ import server_params
from learner_agent.agent import Agent, LearnerAtWork, Listener, StateFile, Webhook, webhook
from services import ServerParams
from services import messages as m
from services.errors import FederationOver
from services.rest import Client, secret_of, sign
from tests.conftest import InProcess, free_port, until
from tests.controller_api.webhooks.receiver import certificate

HERE = ServerParams("127.0.0.1", 0)
SECRET = secret_of(bytes(range(32)))
NOW = 1_700_000_000
BODY = b'{"type":"poll-now"}'
NEVER_S = 3600.0  # a learner that polls by itself so rarely has its tasks from webhooks
RUN = {"termination": {"federation_rounds": 1}}


@pytest.fixture
async def ear() -> AsyncIterator[Listener]:
    """A listener whose clock stands at NOW."""
    async with Listener(HERE, clock=lambda: NOW) as listener:
        listener.secret = SECRET
        yield listener


async def post(listener: Listener, headers: dict[str, str], body: bytes = BODY) -> int:
    """POST to the listener; the status of its answer."""
    async with httpx.AsyncClient() as http:
        answer = await http.post(listener.url, content=body, headers=headers)
    assert answer.content == b""
    return answer.status_code


async def test_a_genuine_webhook_wakes(ear: Listener) -> None:
    """204, and the agent is told."""
    assert await post(ear, sign(SECRET, "msg_1", NOW, BODY)) == 204
    assert ear.rang.is_set()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, BODY),
        (sign(secret_of(b"guessed"), "msg_1", NOW, BODY), BODY),
        (sign(SECRET, "msg_1", NOW, BODY), b'{"type":"other"}'),
        (sign(SECRET, "msg_1", NOW, BODY) | {"webhook-id": "msg_2"}, BODY),
        (sign(SECRET, "msg_1", NOW - 9, BODY) | {"webhook-timestamp": str(NOW)}, BODY),
        (sign(SECRET, "msg_1", NOW, BODY) | {"webhook-signature": "v1,"}, BODY),
        (sign(SECRET, "msg_1", NOW - 301, BODY), BODY),
        (sign(SECRET, "msg_1", NOW + 301, BODY), BODY),
    ],
)
async def test_a_forged_or_old_webhook_wakes_nobody(ear: Listener, headers: dict[str, str], body: bytes) -> None:
    """401 for all of them alike."""
    assert await post(ear, headers, body) == 401
    assert not ear.rang.is_set()


async def test_a_replayed_webhook_wakes_nobody(ear: Listener) -> None:
    """The same webhook again is answered like the first, whose answer may have been lost, and does nothing."""
    headers = sign(SECRET, "msg_1", NOW, BODY)
    await post(ear, headers)
    ear.rang.clear()
    assert await post(ear, headers) == 204
    assert not ear.rang.is_set()
    assert await post(ear, sign(SECRET, "msg_2", NOW, BODY)) == 204
    assert ear.rang.is_set()


async def test_a_replay_is_refused_for_as_long_as_its_time_is_good() -> None:
    """The memory of a webhook outlives its timestamp, and ends then."""
    now = [NOW]
    async with Listener(HERE, clock=lambda: now[0]) as listener:
        listener.secret = SECRET
        early = sign(SECRET, "msg_1", NOW + 300, BODY)  # by a clock that is five minutes ahead
        for at, status, wakes in ((NOW, 204, True), (NOW + 600, 204, False), (NOW + 601, 401, False)):
            now[0] = at
            listener.rang.clear()
            assert (await post(listener, early), listener.rang.is_set()) == (status, wakes)
        assert await post(listener, sign(SECRET, "msg_2", NOW + 601, BODY)) == 204
        assert list(listener._taken) == ["msg_2"]


async def test_nothing_is_genuine_without_a_secret(ear: Listener) -> None:
    """Before the controller gave one, nobody can know it."""
    ear.secret = None
    assert await post(ear, sign(SECRET, "msg_1", NOW, BODY)) == 401


async def test_only_post_on_one_path_is_taken(ear: Listener) -> None:
    """404 elsewhere, 405 with Allow for other methods."""
    async with httpx.AsyncClient() as http:
        headers = sign(SECRET, "msg_1", NOW, BODY)
        assert (await http.post(ear.url + "/more", content=BODY, headers=headers)).status_code == 404
        for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
            answer = await http.request(method, ear.url, headers=headers)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert not ear.rang.is_set()


async def exchange(listener: Listener, request: bytes) -> bytes:
    """Send bytes, and read until the listener closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(listener.url).port)
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


START = b"POST /poll-now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"


async def test_a_long_body_is_refused(ear: Listener) -> None:
    """413: by what it declares before any of it is read, and by what comes."""
    assert (await exchange(ear, START + b"Content-Length: 4097\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
    chunks = b"400\r\n" + b"x" * 1024 + b"\r\n"
    answer = await exchange(ear, START + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    long = b"x" * 4096
    assert await post(ear, sign(SECRET, "msg_1", NOW, long), long) == 204


async def test_a_slow_body_is_refused(ear: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 for what was announced and does not come."""
    monkeypatch.setattr(webhook, "BODY_S", 0.05)
    assert (await exchange(ear, START + b"Content-Length: 10\r\n\r\n{")).startswith(b"HTTP/1.1 408 ")


async def test_endless_headers_are_refused(ear: Listener) -> None:
    """An answer and the end of the connection, not a buffer that grows."""
    assert (await exchange(ear, START + b"X: " + b"x" * 20_000)).startswith(b"HTTP/1.1 400 ")


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it sends nothing, half a request, or one a minute."""
    monkeypatch.setattr(webhook, "CONNECTION_S", 0.1)
    async with Listener(HERE) as listener:
        for start in (b"", START, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
            try:
                await exchange(listener, start)
            except ConnectionResetError:
                continue


async def test_the_callback_is_where_it_listens() -> None:
    """Port 0 is a free one, and the callback names it; a host that means everywhere is this machine's name."""
    async with Listener(HERE) as one, Listener(ServerParams("0.0.0.0", 0)) as everywhere:
        port = httpx.URL(one.url).port
        assert one.url == f"http://127.0.0.1:{port}/poll-now"
        assert port not in (None, 0)
        assert httpx.URL(everywhere.url).host == socket.gethostname().lower()


async def test_a_callback_of_the_users_own() -> None:
    """Behind a proxy: the controller gets the user's URL, and the listener takes its path as well as its own."""
    async with Listener(HERE, "https://learner.example/hooks/a%20b") as listener:
        listener.secret = SECRET
        assert listener.url == "https://learner.example/hooks/a%20b"
        port = listener._socket.getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for number, path in enumerate(("/hooks/a%20b", "/poll-now")):
                headers = sign(SECRET, f"msg_{number}", int(time.time()), BODY)
                assert (await http.post(path, content=BODY, headers=headers)).status_code == 204


async def test_a_port_in_use_is_said() -> None:
    """OSError with the address, before anything is enrolled."""
    async with Listener(HERE) as listener:
        port = httpx.URL(listener.url).port
        assert port
        with pytest.raises(OSError, match=f"cannot listen for webhooks on 127.0.0.1:{port}"):
            async with Listener(ServerParams("127.0.0.1", port)):
                pass


async def test_the_signals_stay_the_agents() -> None:
    """By SIGTERM and SIGINT it leaves the federation: the server must not take them."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with Listener(HERE):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_webhooks_by_tls(tmp_path: Path) -> None:
    """With certificates it listens by TLS, and the callback says so."""
    made, key = certificate(tmp_path, "learner.example")
    async with Listener(ServerParams("127.0.0.1", 0, str(made), str(made), str(key))) as listener:
        listener.secret = SECRET
        assert listener.url.startswith("https://127.0.0.1:")
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=made)) as http:
            headers = sign(SECRET, "msg_1", int(time.time()), BODY)
            assert (await http.post(listener.url, content=BODY, headers=headers)).status_code == 204


# ---- tasks by webhooks
async def joined(client: Client, url: str | None) -> m.Learner:
    """Enrol with a callback."""
    me = await client.join(m.JoinRequest(name="alice", callback_url=url))
    client.token = me.token
    return me


async def test_a_task_comes_by_webhook(controller: InProcess) -> None:
    """A waiting learner that never polls by itself has its task as soon as there is one."""
    async with controller.client() as client, Listener(HERE) as listener:
        me = await joined(client, listener.url)
        async with aclosing(Webhook(listener, NEVER_S)(client, me)) as tasks, asyncio.timeout(10):
            waiting = asyncio.ensure_future(anext(tasks))
            await polled(controller)
            await controller.http.post("/v1/runs", json=RUN)
            assert (await waiting).kind == "init"


POLLED = 'metis_http_requests_total{method="GET",route="/v1/learners/{learner_id}/task",status="204"}'


async def polled(controller: InProcess) -> None:
    """Wait until a poll was answered with nothing."""

    async def answered() -> bool:
        return POLLED in (await controller.http.get("/metrics")).text

    await until(answered, 5)


async def test_a_lost_webhook_is_no_hang(controller: InProcess) -> None:
    """Where no webhook arrives the learner finds its task by its own polls."""
    async with controller.client() as client, Listener(HERE) as listener:
        me = await joined(client, f"http://127.0.0.1:{free_port()}/")
        async with aclosing(Webhook(listener, 0.1)(client, me)) as tasks, asyncio.timeout(10):
            waiting = asyncio.ensure_future(anext(tasks))
            await polled(controller)
            await controller.http.post("/v1/runs", json=RUN)
            assert (await waiting).kind == "init"
            assert not listener.rang.is_set()


async def test_without_a_secret_it_polls(controller: InProcess) -> None:
    """A secret that never arrived (its answer was lost) leaves long polls."""
    async with controller.client() as client, Listener(HERE) as listener:
        me = (await joined(client, listener.url)).model_copy(update={"webhook_secret": None})
        async with aclosing(Webhook(listener, NEVER_S)(client, me)) as tasks, asyncio.timeout(10):
            waiting = asyncio.ensure_future(anext(tasks))
            await controller.http.post("/v1/runs", json=RUN)
            assert (await waiting).kind == "init"
            assert not listener.rang.is_set()


async def test_the_end_of_the_federation_comes_by_webhook(controller: InProcess) -> None:
    """Learners that wait for webhooks hear of it at once, and the controller need not wait for their own polls."""
    async with controller.client() as client, Listener(HERE) as listener:
        me = await joined(client, listener.url)
        async with aclosing(Webhook(listener, NEVER_S)(client, me)) as tasks, asyncio.timeout(10):
            waiting = asyncio.ensure_future(anext(tasks))
            await polled(controller)
            await controller.http.post("/v1/shutdown")
            with pytest.raises(FederationOver):
                await waiting


# ---- the command line
def test_listen_is_host_and_port() -> None:
    """HOST:PORT, an IPv6 host in brackets, TLS with all three files."""
    assert server_params("127.0.0.1:9000", None, None, None) == ServerParams("127.0.0.1", 9000)
    assert server_params("[::1]:0", None, None, None) == ServerParams("::1", 0)
    assert server_params("a:1", "ca", "crt", "key") == ServerParams("a", 1, "ca", "crt", "key")
    assert server_params("a:1", "ca", None, None) == ServerParams("a", 1)  # `ca` is for the controller


@pytest.mark.parametrize("listen", ["9000", "localhost", "localhost:", "localhost:x", "localhost:70000", "a:-1"])
def test_listen_without_a_port_is_refused(listen: str) -> None:
    """A sentence that shows how to write it."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        server_params(listen, None, None, None)


def test_half_of_tls_is_refused() -> None:
    """A certificate without a key listens to nobody."""
    with pytest.raises(ValueError, match="--private-key"):
        server_params("a:1", "ca", "crt", None)


# ---- the secret
class Enough(Exception):
    """Ends an agent."""


async def enrolled(controller: InProcess, folder: Path, callback: str | None) -> m.Learner:
    """As whom an agent with this state folder is enrolled."""
    state = StateFile(folder, "alice", "here")
    seen: list[m.Learner] = []

    async def source(client: Client, me: m.Learner) -> AsyncGenerator[m.Task, None]:
        seen.append(me)
        raise Enough
        yield  # an async generator

    async with controller.client() as client:
        request = m.JoinRequest(name="alice", callback_url=callback)
        with pytest.raises(Enough):
            await Agent(LearnerAtWork(Learner()), client, source, request, state=state).run()
    state.close()
    return seen[0]


async def test_the_secret_outlives_the_agent(controller: InProcess, tmp_path: Path) -> None:
    """It is given once, with the first callback; a restarted agent has it from its state folder."""
    without = await enrolled(controller, tmp_path, None)
    first = await enrolled(controller, tmp_path, "http://127.0.0.1:9000/")
    again = await enrolled(controller, tmp_path, "http://127.0.0.1:9001/")
    assert without.webhook_secret is None
    assert first.webhook_secret
    assert again.webhook_secret == first.webhook_secret
    assert without.id == first.id == again.id
