"""HTTP as its users expect it (RFC 9110, 9112), beyond what the contract itself says."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import numpy as np
import pytest

from tests.conftest import InProcess, in_process
from tests.controller_api.driving import (
    MSGPACK,
    OPERATOR,
    TOKENS,
    bearer,
    begin,
    digest_of,
    join,
    listening,
    model,
    problem,
    settings,
)


@pytest.mark.parametrize(
    "lines",
    ["", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nHost: evil.example\r\n"],
    ids=["none", "twice", "two"],
)
async def test_a_request_has_one_host(lines: str) -> None:
    """Another number of them is 400, as a problem document."""
    async with listening() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(f"GET /healthz HTTP/1.1\r\n{lines}\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_every_answer_has_its_date() -> None:
    """Also the refusal of what is no request at all."""
    async with listening() as running:
        well = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for request in (well, b"GET /no HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            dates = [line.partition(": ")[2] for line in head if line.startswith("date: ")]
            assert len(dates) == 1, head
            assert abs(parsedate_to_datetime(dates[0]).timestamp() - time()) < 60
            writer.close()


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "GZIP"])
async def test_a_coded_body_is_415(controller: InProcess, coding: str) -> None:
    """It would be taken for what it is not; `identity` is what is sent anyway."""
    answer = await controller.http.post("/v1/learners", json={"name": "anna"}, headers={"Content-Encoding": coding})
    problem(answer, 415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "identity"
    plain = await controller.http.post("/v1/learners", json={"name": "anna"}, headers={"Content-Encoding": "identity"})
    assert plain.status_code == 201


async def test_if_match_is_honoured_or_refused(controller: InProcess) -> None:
    """412 where it names something else, and where nothing has an entity tag: never ignored."""
    body = model(np.zeros(3, "<f4"))
    path, etag = f"/v1/models/{digest_of(body)}", f'"{digest_of(body)}"'
    await controller.http.put(path, content=body, headers={"Content-Type": MSGPACK})
    for given in (etag, f'"a", {etag}', "*"):
        assert (await controller.http.get(path, headers={"If-Match": given})).status_code == 200
    for given in ('"a"', f"W/{etag}", ""):
        problem(await controller.http.get(path, headers={"If-Match": given}), 412, "precondition-failed")
    page = await controller.http.get("/")
    assert (await controller.http.get("/", headers={"If-Match": page.headers["etag"]})).status_code == 200
    problem(await controller.http.get("/", headers={"If-Match": '"a"'}), 412, "precondition-failed")
    problem(await controller.http.get("/v1/runs", headers={"If-Match": '"a"'}), 412, "precondition-failed")
    problem(await controller.http.post("/v1/runs", json={}, headers={"If-Match": '"a"'}), 412, "precondition-failed")
    assert (await controller.http.get("/v1/runs")).json() == []


async def test_the_newest_model_is_asked_for_again(controller: InProcess) -> None:
    """A digest never changes what it names, a run's newest model does."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    newest = await controller.http.get("/v1/runs/current/model")
    assert newest.headers["cache-control"] == "private, no-cache"
    again = await controller.http.get("/v1/runs/current/model", headers={"If-None-Match": newest.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "private, no-cache")
    named = await controller.http.get(f"/v1/models/{task['model']['digest']}")
    assert "immutable" in named.headers["cache-control"]


async def test_the_head_of_the_event_stream_has_no_length(controller: InProcess) -> None:
    """It has no end."""
    head = await controller.http.head("/v1/events")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "content-length" not in head.headers


async def test_a_wrong_token_is_not_told_to_send_one() -> None:
    """RFC 6750, section 3.1."""
    async with in_process(settings(**TOKENS)) as guarded:
        none = await guarded.http.get("/v1/federation")
        wrong = await guarded.http.get("/v1/federation", headers=bearer("wrong" * 6))
        assert "send a token" in problem(none, 401, "unauthenticated")["detail"]
        assert none.headers["www-authenticate"] == "Bearer"
        assert "send a token" not in problem(wrong, 401, "unauthenticated")["detail"]
        assert wrong.headers["www-authenticate"] == 'Bearer error="invalid_token"'


# ---- enrolling twice
async def test_a_replayed_enrolment_gets_no_token_once_the_first_was_used() -> None:
    """Whoever has seen the request cannot take the learner over."""
    async with in_process(settings(**TOKENS)) as guarded:
        sent: dict[str, Any] = {
            "json": {"name": "anna"},
            "headers": {"Idempotency-Key": "k" * 32, **bearer(TOKENS["enroll_token"])},
        }
        first = (await guarded.http.post("/v1/learners", **sent)).json()
        again = await guarded.http.post("/v1/learners", **sent)  # the answer was lost
        assert (again.status_code, again.json()["id"]) == (201, first["id"])
        mine, path = bearer(again.json()["token"]), f"/v1/learners/{first['id']}"
        assert (await guarded.http.get(path, headers=bearer(first["token"]))).status_code == 401
        assert (await guarded.http.get(path, headers=mine)).status_code == 200
        told = problem(await guarded.http.post("/v1/learners", **sent), 409, "name-taken")
        assert told["id"] == first["id"]
        assert (await guarded.http.get(path, headers=mine)).status_code == 200


async def test_a_lost_learner_keeps_its_name_where_there_are_tokens() -> None:
    """409 says what frees it: its token, another name, an operator's DELETE."""
    async with in_process(settings(**TOKENS)) as guarded:
        anna = await join(guarded.http, "anna", TOKENS["enroll_token"])
        member = guarded.app.state.runtime.federation.roster.get(anna.id)
        member.state = "lost"
        sent: dict[str, Any] = {"json": {"name": "anna"}, "headers": bearer(TOKENS["enroll_token"])}
        told = problem(await guarded.http.post("/v1/learners", **sent), 409, "name-taken")["detail"]
        assert "lost" in told
        assert "its token" in told
        assert "another name" in told
        assert f"DELETE /v1/learners/{anna.id}" in told
        assert "stays its own until it leaves" in told
        back = await guarded.http.post("/v1/learners", json={"name": "anna"}, headers=bearer(anna.token))
        assert (back.status_code, back.json()["state"]) == (200, "active")
        member.state = "lost"
        assert (await guarded.http.delete(f"/v1/learners/{anna.id}", headers=bearer(OPERATOR))).status_code == 204
        assert (await guarded.http.post("/v1/learners", **sent)).status_code == 201


async def test_without_tokens_a_name_is_free_after_its_lease(controller: InProcess) -> None:
    """The answer says when."""
    anna = await join(controller.http, "anna")
    taken = await controller.http.post("/v1/learners", json={"name": "anna"})
    seconds = int(taken.headers["retry-after"])
    assert 1 <= seconds <= 30
    assert f"in {seconds} s" in problem(taken, 409, "name-taken")["detail"]
    controller.app.state.runtime.federation.roster.get(anna.id).state = "lost"
    assert (await controller.http.post("/v1/learners", json={"name": "anna"})).status_code == 201
