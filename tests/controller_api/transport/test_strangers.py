"""Connections that show no token are bounded for each address, and a learner's are never the ones that go."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from controller_api.transport import Strangers
from tests.conftest import until
from tests.controller_api.driving import ENROLL, OPERATOR, TOKENS, bearer
from tests.controller_api.transport.test_protocol import Raw, serving

MOST = 20


class Line:
    """A connection that may be ended."""

    def __init__(self) -> None:
        self.ended = False

    def end(self) -> None:
        """It is."""
        self.ended = True


def forwarded(value: str) -> list[tuple[bytes, bytes]]:
    """The field of a proxy."""
    return [(b"x-forwarded-for", value.encode())]


def test_the_oldest_of_an_address_goes() -> None:
    """Of that address alone."""
    strangers, lines = Strangers(2), [Line() for _ in range(4)]
    strangers.came(lines[0], "192.0.2.1", lines[0].end)
    for line in lines[1:]:
        strangers.came(line, "192.0.2.2", line.end)
    assert [line.ended for line in lines] == [False, True, False, False]


def test_who_has_shown_a_token_or_left_counts_no_more() -> None:
    """However many come after it."""
    strangers, known, left = Strangers(1), Line(), Line()
    for line in (known, left):
        strangers.came(line, "192.0.2.1", line.end)
        strangers.forget(line)
    strangers.came(object(), "192.0.2.1", lambda: None)
    assert [line.ended for line in (known, left)] == [False, False]


def test_behind_a_trusted_proxy_addresses_are_those_that_it_tells() -> None:
    """The nearest one that is no proxy's; what a stranger writes before it counts for nothing."""
    strangers, lines = Strangers(1, ["10.0.0.0/8"]), [Line() for _ in range(4)]
    for line, told in zip(
        lines, ("192.0.2.1", "192.0.2.2", "203.0.113.9, 192.0.2.1, 10.0.0.7", "1.1.1.1"), strict=True
    ):
        strangers.came(line, "10.0.0.1", line.end)
        strangers.asked(line, "10.0.0.1", forwarded(told), line.end)
    assert [line.ended for line in lines] == [True, False, False, False]
    strangers.answered(lines[1], "10.0.0.1")
    again = Line()
    strangers.asked(again, "10.0.0.1", forwarded("192.0.2.2"), again.end)
    assert not lines[1].ended


def test_nobody_else_tells_addresses() -> None:
    """A stranger that claims to forward for others is itself."""
    strangers, first = Strangers(1, ["10.0.0.0/8"]), Line()
    strangers.came(first, "192.0.2.1", first.end)
    second = Line()
    strangers.came(second, "192.0.2.1", second.end)
    strangers.asked(second, "192.0.2.1", forwarded("203.0.113.9"), second.end)
    assert first.ended


async def test_readers_without_a_token_do_not_push_a_learner_out() -> None:
    """Two hundred that ask for a page and read nothing, from a learner's own address: twenty of them stay, its poll
    goes on, and whoever comes with a token gets in."""
    async with serving(True, stranger_connections=MOST, **TOKENS) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            me = (await http.post("/v1/learners", json={"name": "anna"}, headers=bearer(ENROLL))).json()
            poll = asyncio.create_task(
                http.get(f"/v1/learners/{me['id']}/task", params={"wait": 30}, headers=bearer(me["token"]))
            )
            await asyncio.sleep(0.2)
            pinned = []
            for _ in range(200):
                raw = await Raw.open(server)
                pinned.append(raw)
                with contextlib.suppress(ConnectionError):
                    await raw.send(b"GET /static/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n")

            async def bounded() -> bool:
                return len(server.server_state.connections) <= MOST + 5

            await until(bounded)
            assert not poll.done()
            assert (await http.get("/v1/federation", headers=bearer(OPERATOR))).status_code == 200
            await http.post("/v1/runs", json={"termination": {"federation_rounds": 1}}, headers=bearer(OPERATOR))
            assert (await poll).status_code == 200


@pytest.mark.parametrize("given", [{}, {"stranger_connections": 5}])
async def test_without_tokens_there_is_no_bound(given: dict[str, Any]) -> None:
    """Nobody could show one."""
    async with serving(True, **given) as server:
        raws = [await Raw.open(server) for _ in range(80)]
        for raw in raws:
            await raw.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [(await raw.answer())[0] for raw in raws] == [200] * 80
