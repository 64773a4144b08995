"""The event stream: one ordered log as server-sent events (https://html.spec.whatwg.org/#server-sent-events)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from controller_api.runtime import events as event_log
from tests.controller_api.driving import TWO_ROUNDS, Running, begin, join, listening, problem


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A controller that listens: a stream needs a socket."""
    async with listening() as made:
        yield made


@asynccontextmanager
async def stream(running: Running, after: object = None) -> AsyncIterator[AsyncIterator[str]]:
    """The blocks of a stream, begun after the event with this id."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with asyncio.timeout(20), running.http.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield _blocks(answer)


async def _blocks(answer: httpx.Response) -> AsyncIterator[str]:
    lines: list[str] = []
    async for line in answer.aiter_lines():
        if line:
            lines.append(line)
        else:
            yield "\n".join(lines)
            lines = []


async def next_event(blocks: AsyncIterator[str]) -> dict[str, Any]:
    """The next event; comments are passed over."""
    async for block in blocks:
        if not block.startswith(":"):
            identity, kind, data = block.split("\n")
            event: dict[str, Any] = json.loads(data.removeprefix("data: "))
            assert (identity, kind) == (f"id: {event['id']}", f"event: {event['kind']}")
            return event
    raise AssertionError("the stream ended")


async def test_a_follower_sees_what_happens_next(running: Running) -> None:
    """Without an id the stream begins now: a comment at once, then the events, numbered one after the other."""
    await join(running.http, "before")
    async with stream(running) as blocks:
        assert (await anext(blocks)).startswith(":")
        await join(running.http, "anna")
        first = await next_event(blocks)
        await running.http.post("/v1/runs", json={**TWO_ROUNDS, "min_learners": 3})
        second = await next_event(blocks)
    assert (first["kind"], first["learner"], first["text"]) == ("learner-joined", "anna", "anna joined")
    assert (second["kind"], second["id"]) == ("run-started", first["id"] + 1)


async def test_a_stream_resumes_where_it_was_cut(running: Running) -> None:
    """Nothing is lost and nothing comes twice: 0 is the oldest event, n the one after n."""
    await begin(running.http, "anna", "ben")
    async with stream(running, 0) as blocks:
        seen = [await next_event(blocks) for _ in range(6)]
    assert [one["id"] for one in seen] == [1, 2, 3, 4, 5, 6]
    assert [one["kind"] for one in seen[:3]] == ["learner-joined", "learner-joined", "run-started"]
    async with stream(running, seen[3]["id"]) as blocks:
        assert [await next_event(blocks), await next_event(blocks)] == seen[4:]


async def test_followers_do_not_disturb_each_other(running: Running) -> None:
    """Each of several streams has every event in the same order."""
    async with stream(running, 0) as one, stream(running, 0) as other:
        for name in ("anna", "ben"):
            await join(running.http, name)
        assert [await next_event(one) for _ in range(2)] == [await next_event(other) for _ in range(2)]


async def test_a_round_tells_its_story_in_order(running: Running) -> None:
    """From the first task to the closed round, each event with its run, round and learner."""
    (anna,) = await begin(running.http, "anna", termination={"federation_rounds": 1})
    await anna.work()
    await anna.work(accuracy=0.75)
    async with stream(running, 0) as blocks:
        events = [await next_event(blocks)]
        while events[-1]["kind"] != "run-ended":
            events.append(await next_event(blocks))
    told = [one["kind"] for one in events if one["kind"] not in ("run-state", "task-offered")]
    assert told == [
        *("learner-joined", "run-started", "update-accepted", "round-started", "update-accepted"),
        *("round-aggregated", "update-accepted", "round-closed", "run-ended"),
    ]
    closed = next(one for one in events if one["kind"] == "round-closed")
    assert (closed["round"], closed["data"]["evaluation_metrics"]["combined"]) == (1, {"accuracy": 0.75})
    assert len({one["run_id"] for one in events if one["run_id"]}) == 1


async def test_a_quiet_stream_gives_a_sign_of_life(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment every so often, so that neither side takes the other for dead."""
    monkeypatch.setattr(event_log, "QUIET_S", 0.05)
    async with stream(running) as blocks:
        assert [(await anext(blocks))[0] for _ in range(4)] == [":"] * 4


async def test_an_id_of_an_earlier_process_begins_anew(running: Running) -> None:
    """A follower that comes back after a restart gets the log of this process from its beginning."""
    await join(running.http, "anna")
    async with stream(running, 10**17) as blocks:
        assert (await next_event(blocks))["id"] == 1


@pytest.mark.parametrize("given", ["last", "-1", "1.5", "", "²", "9" * 5000])
async def test_an_id_that_is_no_number_is_refused(running: Running, given: str) -> None:
    """400 before the stream begins."""
    answer = await running.http.get("/v1/events", headers={b"Last-Event-ID": given.encode("latin-1")})
    problem(answer, 400, "not-parseable")


async def test_head_tells_the_media_type_and_ends(running: Running) -> None:
    """HEAD has no stream to wait for: the connection serves the next call."""
    async with asyncio.timeout(5):
        answer = await running.http.head("/v1/events")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (await running.http.get("/healthz")).status_code == 200


async def test_shutdown_ends_the_streams(running: Running) -> None:
    """The last event says that the federation is over; then the stream ends, so that the process can."""
    async with stream(running, 0) as blocks:
        await running.http.post("/v1/shutdown")
        assert (await next_event(blocks))["kind"] == "federation-over"
        assert [block async for block in blocks if not block.startswith(":")] == []
