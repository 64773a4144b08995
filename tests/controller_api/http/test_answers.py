"""What every answer says of caches and types; and callers that were refused, in the log."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller_api.http.answers import GROUPS
from controller_api.http.gate import POLICIES
from tests.conftest import InProcess, Process, in_process, serve, until
from tests.controller_api.driving import ENROLL, OPERATOR, TOKENS, VIEWER, bearer, begin, join, listening, settings

CANARY = "canary-7d20b1f4"
CACHED = ("/", "/docs", "/docs/protocol", "/openapi.json", "/static/page.css")  # pages, which are asked for again


def told(answer: httpx.Response) -> tuple[list[str], list[str]]:
    """All that it says of caches, and of types."""
    return answer.headers.get_list("cache-control"), answer.headers.get_list("x-content-type-options")


async def test_no_cache_keeps_an_answer_of_the_contract(controller: InProcess) -> None:
    """Whatever its status, method and maker; pages and models say themselves who may keep them. Each says it once."""
    http = controller.http
    (anna,) = await begin(http, "anna")
    task = await anna.task()
    names = {"learner_id": anna.id, "task_id": task["id"], "run_id": "current", "name": "page.css", "number": "1"}
    names["digest"] = task["model"]["digest"]
    paths = [path.format(**names) for path, methods in POLICIES.items() if "GET" in methods and path != "/v1/events"]
    answers = [await http.request(method, path) for path in paths for method in ("GET", "HEAD")]
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        path = answer.url.path
        kept = ["no-cache"] if path in CACHED else ["no-store"]
        if path.startswith("/v1/models/"):
            kept = ["private, max-age=31536000, immutable"]
        if path.endswith("/model"):  # of a run: another one in each round
            kept = ["private, no-cache"]
        assert told(answer) == (kept, ["nosniff"]), path


@pytest.mark.parametrize(
    ("status", "method", "path", "given"),
    [
        (204, "GET", "{anna}/task?wait=0", {}),
        (204, "POST", "{anna}/heartbeat", {"json": {}}),
        (201, "POST", "/v1/learners", {"json": {"name": "bert"}}),
        (400, "POST", "/v1/learners", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        (401, "GET", "/v1/federation", {"headers": bearer("x" * 43)}),
        (403, "GET", "/v1/federation", {"as_anna": True}),
        (404, "GET", "/v1/nowhere", {}),
        (404, "GET", "/v1/models/sha256-" + "0" * 64, {}),
        (404, "GET", "/static/nothing.js", {}),
        (405, "PUT", "/v1/federation", {}),
        (413, "POST", "/v1/learners", {"content": b"x" * 20_000, "headers": {"Content-Type": "application/json"}}),
        (415, "POST", "/v1/learners", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        (422, "POST", "/v1/runs", {"json": {"no_such_key": 1}}),
        (500, "GET", "/v1/runs", {"broken": True}),
    ],
)
async def test_nor_a_refusal(
    monkeypatch: pytest.MonkeyPatch, status: int, method: str, path: str, given: dict[str, Any]
) -> None:
    """Problem documents, answers without a body, those of the framework and of bugs."""
    async with in_process(settings()) as running:
        anna = await join(running.http, "anna")
        if given.pop("as_anna", False):
            given["headers"] = bearer(anna.token)
        if given.pop("broken", False):
            monkeypatch.setattr(type(running.app.state.runtime.federation.runs), "values", None)
        answer = await running.http.request(method, path.format(anna=anna.path), **given)
        assert (answer.status_code, told(answer)) == (status, (["no-store"], ["nosniff"]))


async def test_over_a_socket_too() -> None:
    """The server's own protocol sends what the app says."""
    async with listening() as running:
        for path in ("/v1/federation", "/v1/nowhere"):
            assert told(await running.http.get(path)) == (["no-store"], ["nosniff"])


# ---- refused callers
def refusals(process: Process) -> list[dict[str, Any]]:
    """What the log tells of them."""
    lines = [json.loads(line) for line in process.tail(10_000).splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "refused"]


async def settled(process: Process, calls: int) -> list[dict[str, Any]]:
    """The same, once so many calls were told of."""

    async def all_told() -> list[dict[str, Any]]:
        found = refusals(process)
        return found if sum(line["calls"] for line in found) >= calls else []

    told_of: list[dict[str, Any]] = await until(all_told, 60)
    return told_of


async def test_failed_authentications_are_in_the_log(start: Callable[..., Process], tmp_path: Path) -> None:
    """By address and path, with how many there were; wrong tokens and roles apart; never a token."""
    secrets = {f"METIS_{name.upper()}": token for name, token in TOKENS.items()}
    served = await asyncio.to_thread(serve, start, tmp_path, METIS_LOG_FORMAT="json", **secrets)
    async with httpx.AsyncClient(base_url=served.url, timeout=20) as http:
        for number in range(30):
            await http.get("/v1/federation", headers=bearer(f"{CANARY}-{number}-of-nobody"))
        await http.get("/v1/learners/" + CANARY)
        await http.post("/v1/shutdown", headers=bearer(VIEWER))
        assert (await http.get("/v1/federation", headers=bearer(OPERATOR))).status_code == 200
        assert (await join(http, "anna", ENROLL)).name == "anna"
    found = await settled(served.process, 32)
    assert {(line["peer"], line["level"]) for line in found} == {("127.0.0.1", "warning")}
    counts: dict[tuple[str, int], int] = {}
    for line in found:
        group = (line["path"], line["status"])
        counts[group] = counts.get(group, 0) + line["calls"]
    assert counts == {("/v1/federation", 401): 30, ("/v1/learners/{learner_id}", 401): 1, ("/v1/shutdown", 403): 1}
    assert len(found) < 20
    assert CANARY not in served.process.tail(10_000)
    assert VIEWER not in served.process.tail(10_000)


def knock(port: int, source: str, times: int) -> None:
    """Calls without a token, from an address of loopback."""
    with socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0)) as connection:
        for _ in range(times):
            connection.sendall(b"GET /v1/federation HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                answer += connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 401")


async def test_a_flood_of_addresses_fills_no_memory() -> None:
    """Who comes when many wait to be told of is counted with the others."""
    addresses = GROUPS + 200
    async with listening(**TOKENS) as running:
        for number in range(addresses):
            await asyncio.to_thread(knock, running.port, f"127.0.{1 + number // 250}.{1 + number % 250}", 2)
        refused = running.app.refused  # type: ignore[attr-defined]
        waiting = dict(refused._calls)
    assert len(waiting) <= GROUPS + 1
    assert waiting["others", "others", 401] >= 2 * 100


async def test_lines_come_once_a_second(start: Callable[..., Process], tmp_path: Path) -> None:
    """However many groups there are: their stamps are a second apart."""
    secrets = {f"METIS_{name.upper()}": token for name, token in TOKENS.items()}
    served = await asyncio.to_thread(serve, start, tmp_path, METIS_LOG_FORMAT="json", **secrets)
    for number in range(4):
        await asyncio.to_thread(knock, served.port, f"127.0.0.{2 + number}", 5)
    found = await settled(served.process, 20)
    assert len({line["peer"] for line in found}) == 4
    seconds = [float(re.split("[:Z]", line["timestamp"])[2]) for line in found]
    assert all((after - before) % 60 > 0.9 for before, after in itertools.pairwise(seconds))
