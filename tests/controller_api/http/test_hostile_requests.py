"""Hostile paths, headers, media types and raw bytes: a refusal each, never a 5xx, and the controller goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from controller_api.http.gate import HEARTBEAT_BYTES, JOIN_BYTES, SCORES_BYTES
from controller_api.settings import MEBIBYTE
from tests.conftest import InProcess
from tests.controller_api.driving import MSGPACK, Running, begin, document, join, listening, problem, seen, weights

UNKNOWN = {
    "/v1/learners/0000": "unknown-learner",
    "/v1/learners/0000/task": "unknown-learner",
    "/v1/runs/0000": "unknown-run",
    "/v1/runs/0000/rounds": "unknown-run",
    "/v1/runs/0000/results": "unknown-run",
    "/v1/runs/0000/model": "unknown-run",
    "/v1/models/sha256-" + "0" * 64: "unknown-model",
    "/static/unknown.js": "not-found",
}
PLACES = ("/v1/learners/{}", "/v1/learners/{}/task", "/v1/models/{}", "/v1/runs/{}/model", "/static/{}", "/v1/runs/{}")
NAMES = [
    *("%2e%2e", "../../../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cetc", "%252e%252e%252f"),
    *("a" * 65, "a b", "a%00b", "a%0ab", "%c3%a9", "%ff", "", "%2e", "sha256-" + "0" * 63, "sha256-" + "0" * 65),
    *("sha256-" + "A" * 64, "sha512-" + "0" * 64, "/etc/passwd", "a;b", "a'--", "{}"),
]
TYPES = [
    "text/plain",
    "application/xml",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "",
    "json",
]


# ---- in this process
@pytest.mark.parametrize(("path", "name"), UNKNOWN.items())
async def test_an_unknown_id_is_404(controller: InProcess, path: str, name: str) -> None:
    """By the name of what is missing."""
    problem(await controller.http.get(path), 404, name)


@pytest.mark.parametrize("place", PLACES)
async def test_what_is_no_id_is_no_path(controller: InProcess, place: str) -> None:
    """404 before anything looks for a file, a model or a run of that name."""
    for name in NAMES:
        answer = await controller.http.get(place.format(name))
        assert answer.status_code == 404, name
        assert answer.json()["type"] in ("/errors/not-found", "/errors/unknown-learner", "/errors/unknown-run"), name
        assert "root:" not in answer.text


@pytest.mark.parametrize("media", TYPES)
async def test_another_media_type_is_415_with_those_that_are_taken(controller: InProcess, media: str) -> None:
    """Every endpoint with a body, also without any Content-Type; nothing changes."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()
    before = await seen(controller.http)
    headers = {"Content-Type": media} if media else {}
    for method, path, takes in (
        ("POST", "/v1/learners", "application/json"),
        ("POST", f"{anna.path}/heartbeat", "application/json"),
        ("POST", f"/v1/tasks/{task['id']}/failure", "application/json"),
        ("PUT", f"/v1/tasks/{task['id']}/result", MSGPACK),
        ("PUT", "/v1/models/sha256-" + "0" * 64, MSGPACK),
        ("POST", "/v1/runs", "application/json"),
        ("POST", "/v1/runs/current/stop", "application/json"),
        ("POST", "/v1/runs/current/rounds", "application/json"),
    ):
        answer = await controller.http.request(method, path, content=b"{}", headers=headers)
        assert takes in problem(answer, 415, "unsupported-media-type")["expected"]
    assert await seen(controller.http) == before


async def test_a_body_where_none_is_taken(controller: InProcess) -> None:
    """413 with a limit of nothing."""
    anna = await join(controller.http, "anna")
    for method, path in (("GET", "/v1/federation"), ("DELETE", anna.path), ("POST", "/v1/shutdown")):
        answer = await controller.http.request(method, path, json={})
        assert problem(answer, 413, "too-large")["limit"] == 0
    assert (await controller.http.get("/v1/federation")).json()["state"] == "idle"


async def test_json_is_limited_by_what_is_declared_and_by_what_comes(controller: InProcess) -> None:
    """413 that tells the limit, for the endpoint of weights too."""
    anna, _ = await begin(controller.http, "anna", "ben")
    task = await anna.task()

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * (size // 8)

    for method, path, limit in (
        ("POST", "/v1/learners", JOIN_BYTES),
        ("POST", "/v1/runs", MEBIBYTE),
        ("POST", f"{anna.path}/heartbeat", HEARTBEAT_BYTES),
        ("PUT", f"/v1/tasks/{task['id']}/result", SCORES_BYTES),
    ):
        json = {"Content-Type": "application/json"}
        declared = await controller.http.request(method, path, content=b" " * (limit + 1), headers=json)
        assert problem(declared, 413, "too-large")["limit"] == limit
        if "result" not in path:  # a training's result is no JSON: 415 before it is read
            chunked = await controller.http.request(method, path, content=chunks(limit), headers=json)
            assert problem(chunked, 413, "too-large")["limit"] == limit


# ---- through a socket
@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A controller that listens."""
    async with listening() as made:
        yield made


HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
RAW = {
    "two lengths": b"POST /v1/learners HTTP/1.1\r\n"
    + HOST
    + JSON
    + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": b"POST /v1/learners HTTP/1.1\r\n"
    + HOST
    + JSON
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/learners HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: -1\r\n\r\n",
    "a length of 5,000 digits": b"POST /v1/learners HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: "
    + b"9" * 5000
    + b"\r\n\r\n",
    "a chunk without a size": b"POST /v1/learners HTTP/1.1\r\n"
    + HOST
    + JSON
    + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a path of raw bytes": b"GET /v1/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path that climbs": b"GET /static/../../../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"BREW /v1/runs HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method of another protocol": b"PROPFIND /v1/runs HTTP/1.1\r\n" + HOST + b"\r\n",
    "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "everything at once": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("name", RAW)
async def test_bytes_that_are_no_good_request(running: Running, name: str) -> None:
    """4xx, and the next caller is served."""
    answer = await running.raw(RAW[name])
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert b"root:" not in answer
    assert (await running.http.get("/v1/learners")).json() == []


async def test_an_upgrade_to_a_websocket_is_a_plain_request(running: Running) -> None:
    """Nothing here speaks that protocol: the path is answered as for anyone else."""
    for path, status in ((b"/v1/federation", 200), (b"/nowhere", 404)):
        answer = await running.raw(b"GET " + path + b" HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer


@pytest.mark.parametrize(
    "more",
    [b"X: " + b"a" * 65_536 + b"\r\n", b"".join(b"X%d: a\r\n" % i for i in range(200))],
    ids=["one of 64 kB", "200 of them"],
)
async def test_large_headers_are_refused(running: Running, more: bytes) -> None:
    """431, and the next caller is served."""
    answer = await running.raw(b"GET /v1/federation HTTP/1.1\r\n" + HOST + more + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]
    assert b"/errors/head-too-large" in answer
    assert (await running.http.get("/healthz")).status_code == 200


async def test_huge_headers_do_no_harm(running: Running) -> None:
    """Eight megabytes of them: 431, or the connection is cut, and the next caller is served."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        answer = await running.raw(b"GET /v1/federation HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 8_000_000 + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]
    assert (await running.http.get("/healthz")).status_code == 200


async def test_headers_that_are_not_text_are_refused_or_ignored(running: Running) -> None:
    """Bytes beyond ASCII in headers that are read: no 5xx, nothing is begun by them."""
    anna, _ = await begin(running.http, "anna", "ben")
    digest = (await anna.task())["model"]["digest"].encode()
    before = await seen(running.http)
    for path, header, statuses in (
        (b"/v1/events", b"Last-Event-ID: \xb2", (b"400",)),
        (b"/v1/runs", b"Authorization: Bearer \xff\xfe", (b"401",)),
        (b"/v1/models/" + digest, b"Range: bytes=\xb2-", (b"200",)),
        (b"/v1/models/" + digest, b"If-None-Match: \xff", (b"200",)),
        (b"/v1/models/" + digest, b"If-Range: \xff", (b"200",)),
        (b"/v1/runs", b"Accept: \xff", (b"200",)),
    ):
        answer = await running.raw(b"GET " + path + b" HTTP/1.1\r\n" + HOST + header + b"\r\n\r\n")
        assert answer.split(b" ", 2)[1] in statuses, (header, answer[:100])
    assert await seen(running.http) == before
    assert (await anna.put(await anna.task(), document(*weights()))).status_code == 201
