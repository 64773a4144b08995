"""Webhooks of the controller, sent over real connections to a receiver on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from controller_api.settings import Settings
from controller_api.webhooks import Webhooks
from controller_api.webhooks import delivery as webhooks
from services import messages as m
from services.errors import InvalidRequest
from services.federation import Member
from services.rest import FullJitter
from tests.conftest import InProcess, free_port, in_process, until
from tests.controller_api.webhooks.receiver import certificate, receiving, server_tls

LOCAL = Settings(model_store="InMemory")
BEYOND = Settings(host="192.0.2.1", insecure=True, model_store="InMemory")  # listens beyond loopback
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Names:
    """A resolver that gives one answer after another, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = answers
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The next answer."""
        self.asked += 1
        return self._answers[min(self.asked, len(self._answers)) - 1]


def member(url: str | None, name: str = "alice") -> Member:
    """A learner with a callback."""
    return Member(name, name, b"", m.JoinRequest(name=name, callback_url=url), 0.0, 0.0, webhook_secret=SECRET)


async def idle(sending: Webhooks) -> None:
    """Wait until nothing is under way."""

    async def nothing() -> bool:
        return sending.under_way == 0

    await until(nothing, 20)


async def test_a_webhook_is_signed_and_says_only_poll_now() -> None:
    """POST with the three headers of Standard Webhooks; the signature is HMAC-SHA256 of id.timestamp.body."""
    sending = Webhooks(LOCAL)
    async with receiving() as learner, sending.running():
        sending.call(member(learner.url))
        [one] = await learner.came(1)
    assert (one.line, one.body) == ("POST /poll-now HTTP/1.1", b'{"type":"poll-now"}')
    assert one.headers["content-type"] == "application/json"
    assert abs(int(one.headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert one.headers["webhook-signature"] == f"v1,{expected}"
    assert not {"authorization", "cookie"} & one.headers.keys()


async def test_a_burst_is_one_webhook() -> None:
    """Ten calls at once are one webhook; ten more while it is under way are one more, since it may have come too
    early for them."""
    sending = Webhooks(LOCAL)
    async with receiving(held=True) as learner, sending.running():
        alice = member(learner.url)
        for _ in range(10):
            sending.call(alice)
        await learner.came(1)
        for _ in range(10):
            sending.call(alice)
        learner.answering.set()
        await learner.came(2)
        await idle(sending)
        assert len(learner.requests) == 2
    first, second = learner.requests
    assert first.headers["webhook-id"] != second.headers["webhook-id"]


async def test_it_connects_to_the_address_that_was_checked() -> None:
    """One look-up a webhook, the connection to its answer, the name in the Host header."""
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    sending = Webhooks(LOCAL, names)
    async with receiving() as learner, sending.running():
        sending.call(member(f"http://learner.example:{learner.port}/a?b=c"))
        [one] = await learner.came(1)
        await idle(sending)
    assert (one.line, one.headers["host"]) == ("POST /a?b=c HTTP/1.1", f"learner.example:{learner.port}")
    assert names.asked == 1


async def test_a_name_that_moves_to_an_inner_address_is_not_called() -> None:
    """DNS rebinding: public when it enrolled, loopback when it is called."""
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    sending = Webhooks(BEYOND, names)
    async with receiving() as learner, sending.running():
        url = f"http://learner.example:{learner.port}/"
        await sending.check(url)
        sending.call(member(url))
        await idle(sending)
        with pytest.raises(InvalidRequest):
            await sending.check(url)
        assert (learner.requests, names.asked) == ([], 3)


async def test_the_next_address_is_tried_when_one_does_not_take_the_connection() -> None:
    """`localhost` is often ::1 and 127.0.0.1, and the learner listens on one of them."""
    sending = Webhooks(LOCAL, Names(["127.0.0.2", "127.0.0.1"]))
    async with receiving() as learner, sending.running():
        sending.call(member(f"http://localhost:{learner.port}/"))
        await learner.came(1)
        await idle(sending)
        assert len(learner.requests) == 1


async def test_redirects_are_not_followed() -> None:
    """An answer leads nowhere else: neither to another path nor to another host."""
    async with receiving() as inner:
        moved = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {inner.url}\r\nContent-Length: 0\r\n\r\n"
        sending = Webhooks(LOCAL)
        async with receiving(moved.encode()) as learner, sending.running():
            sending.call(member(learner.url))
            await learner.came(1)
            await idle(sending)
            assert (len(learner.requests), inner.requests) == (1, [])


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checked address is where the connection goes, whatever the environment says."""
    async with receiving() as proxy, receiving() as learner:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sending = Webhooks(LOCAL)
        async with sending.running():
            sending.call(member(learner.url))
            await learner.came(1)
            await idle(sending)
        assert proxy.requests == []


async def test_an_endless_answer_is_not_read() -> None:
    """The status is all that counts: the connection is closed on the body, and the webhook is done."""
    sending = Webhooks(LOCAL)
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n", endless=True) as learner, sending.running():
        sending.call(member(learner.url))
        async with asyncio.timeout(5):
            await learner.hung_up.wait()
        await idle(sending)
        assert len(learner.requests) == 1


@pytest.mark.parametrize(("status", "times"), [(204, 1), (401, 1), (404, 1), (302, 1), (500, 3), (429, 3)])
async def test_only_a_passing_failure_is_repeated(status: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times at most, under the same id; a refusal is final."""
    monkeypatch.setattr(webhooks, "BACKOFF", FullJitter(0.01))
    sending = Webhooks(LOCAL)
    async with receiving(f"HTTP/1.1 {status} Some\r\nContent-Length: 0\r\n\r\n".encode()) as learner, sending.running():
        sending.call(member(learner.url))
        await learner.came(times)
        await idle(sending)
        assert len(learner.requests) == times
        assert len({one.headers["webhook-id"] for one in learner.requests}) == 1


async def test_a_learner_that_cannot_be_reached_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused connections, answers that are not HTTP, silence: all end by themselves, and the others are told."""
    monkeypatch.setattr(webhooks, "BACKOFF", FullJitter(0.01))
    monkeypatch.setattr(webhooks, "ATTEMPT_S", 0.5)
    sending = Webhooks(LOCAL)
    async with (
        receiving(b"SSH-2.0-OpenSSH\r\n") as other,
        receiving(held=True) as silent,
        receiving() as learner,
        sending.running(),
    ):
        sending.call(member(f"http://127.0.0.1:{free_port()}/", "gone"))
        sending.call(member(f"https://127.0.0.1:{learner.port}/", "no-tls"))
        sending.call(member(other.url, "other"))
        sending.call(member(silent.url, "silent"))
        sending.call(member(learner.url))
        await learner.came(1)
        await idle(sending)
        assert 1 <= len(silent.requests) <= webhooks.ATTEMPTS


async def test_few_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest waits for a slot, and gets it."""
    monkeypatch.setattr(webhooks, "AT_ONCE", 2)
    sending = Webhooks(LOCAL)
    async with receiving(held=True) as learner, sending.running():
        for index in range(5):
            sending.call(member(learner.url, f"learner-{index}"))
        await learner.came(2)
        assert (len(learner.requests), sending.under_way) == (2, 5)
        learner.answering.set()
        await learner.came(5)


async def test_the_end_of_the_controller_does_not_wait_for_webhooks() -> None:
    """What is under way is dropped, and later calls do nothing."""
    sending = Webhooks(LOCAL)
    async with receiving(held=True) as learner:
        async with asyncio.timeout(3):
            async with sending.running():
                sending.call(member(learner.url))
                await learner.came(1)
            sending.call(member(learner.url))
        assert sending.under_way == 0


async def test_tls_is_verified_for_the_name_of_the_callback(tmp_path: Path) -> None:
    """Though the connection goes to an address: the certificate must be of the callback's own host."""
    made, key = certificate(tmp_path, "learner.example")
    trusting = Settings(
        model_store="InMemory", root_certificate=str(made), server_certificate=str(made), private_key=str(key)
    )
    sending = Webhooks(trusting, Names(["127.0.0.1"]))
    async with receiving(tls=server_tls(made, key)) as learner, sending.running():
        sending.call(member(f"https://other.example:{learner.port}/"))
        await idle(sending)
        assert learner.requests == []
        sending.call(member(f"https://learner.example:{learner.port}/"))
        sending.call(member(f"https://127.0.0.1:{learner.port}/", "by-address"))
        await learner.came(2)


async def test_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    """A certificate that vouches for itself is none, unless the operator named it."""
    made, key = certificate(tmp_path, "learner.example")
    sending = Webhooks(LOCAL, Names(["127.0.0.1"]))
    async with receiving(tls=server_tls(made, key)) as learner, sending.running():
        sending.call(member(f"https://learner.example:{learner.port}/"))
        await idle(sending)
        assert learner.requests == []


# ---- by way of the HTTP contract
RUN = {"termination": {"federation_rounds": 1}}


async def enrol(controller: InProcess, token: str | None = None, **request: object) -> tuple[int, dict[str, str]]:
    """POST /v1/learners."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await controller.http.post("/v1/learners", json=request, headers=headers)
    return answer.status_code, answer.json()


async def test_a_refused_callback_enrols_nobody() -> None:
    """422 with a sentence that names the callback and the setting, and no change of state."""
    async with in_process() as controller:
        status, problem = await enrol(controller, name="a", callback_url="http://10.0.0.1:9000/")
        assert (status, problem["type"]) == (422, "/errors/invalid-request")
        assert "10.0.0.1" in problem["detail"]
        assert "METIS_CALLBACK_NETWORKS" in problem["detail"]
        assert (await controller.http.get("/v1/learners")).json() == []


async def test_a_task_calls_the_learner() -> None:
    """A run is posted: the learner that is to give its initial weights gets a webhook, signed with its own secret."""
    async with receiving() as place, in_process() as controller:
        status, me = await enrol(controller, name="a", callback_url=place.url)
        assert (status, me["webhook_secret"][:6]) == (201, "whsec_")
        assert len(base64.b64decode(me["webhook_secret"][6:], validate=True)) == 32
        await controller.http.post("/v1/runs", json=RUN)
        [one] = await place.came(1)
    signed = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    key = base64.b64decode(me["webhook_secret"][6:])
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert one.headers["webhook-signature"] == f"v1,{expected}"


async def test_a_learner_that_reports_back_gets_a_secret_once() -> None:
    """With its first callback, not before and not again; the secret is nowhere else to be read."""
    async with receiving() as place, in_process() as controller:
        _, me = await enrol(controller, name="a")
        assert "webhook_secret" not in me
        status, again = await enrol(controller, me["token"], name="a", callback_url=place.url)
        assert (status, again["id"], again["webhook_secret"][:6]) == (200, me["id"], "whsec_")
        _, third = await enrol(controller, me["token"], name="a", callback_url=place.url)
        assert "webhook_secret" not in third
        shown = (await controller.http.get("/v1/learners")).text + (await controller.http.get("/v1/federation")).text
        assert again["webhook_secret"] not in shown


async def test_a_learner_that_reports_back_without_a_callback_is_not_called() -> None:
    """It polls from now on; where it listened before, someone else may."""
    async with receiving() as before, in_process() as controller:
        _, me = await enrol(controller, name="a", callback_url=before.url)
        await enrol(controller, me["token"], name="a")
        await controller.http.post("/v1/runs", json=RUN)
        await idle(controller.app.state.runtime._webhooks)
        assert (await controller.http.get(f"/v1/learners/{me['id']}")).json()["task"]
        assert before.requests == []


def test_a_learner_with_a_callback_keeps_its_lease_between_its_own_polls() -> None:
    """It polls by itself every ten seconds: a shorter lease would lose it again and again."""
    assert [member(url).lapses_at(3.0) for url in (None, "http://a/")] == [3.0, 30.0]
    assert member("http://a/").lapses_at(90.0) == 90.0
