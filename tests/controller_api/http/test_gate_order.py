"""What is judged first: 401, 403, 404, 405, 413, 415, 409 and 410, 400 and 422; and before a body byte is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.conftest import InProcess, in_process, until
from tests.controller_api.driving import (
    ENROLL,
    MSGPACK,
    OPERATOR,
    TOKENS,
    VIEWER,
    Member,
    Running,
    bearer,
    begin,
    document,
    join,
    listening,
    problem,
    settings,
    weights,
)

LIMIT = 1000  # bytes of a JSON body
HUGE = b"x" * (LIMIT + 1)
JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}


@pytest.fixture
async def guarded() -> AsyncIterator[InProcess]:
    """A controller with tokens and small limits."""
    async with in_process(settings(max_json_bytes=LIMIT, max_model_bytes=2 * LIMIT, **TOKENS)) as running:
        yield running


Call = Callable[..., Awaitable[httpx.Response]]


def calling(http: httpx.AsyncClient, method: str, path: str) -> Call:
    """`await call(token, body, headers)`."""

    async def call(token: str | None, body: bytes = b"", headers: Any = None) -> httpx.Response:
        return await http.request(method, path, content=body, headers={**bearer(token), **(headers or {})})

    return call


async def test_each_fault_hides_those_that_are_judged_after_it(guarded: InProcess) -> None:
    """One call with everything wrong, its faults mended one by one, in the contract's order."""
    members = await begin(guarded.http, "anna", "ben", operator=OPERATOR)
    anna, ben = members
    task = await anna.task()
    assert (await anna.put(task, document(*weights()))).status_code == 201
    done = calling(guarded.http, "PUT", f"/v1/tasks/{task['id']}/result")
    big = b"x" * (2 * LIMIT + 1)
    problem(await done("nobody" * 6, big, TEXT), 401, "unauthenticated")
    problem(await done(VIEWER, big, TEXT), 403, "forbidden")
    problem(await done(ben.token, big, TEXT), 403, "forbidden")
    problem(await calling(guarded.http, "PUT", "/v1/tasks/0/result")(anna.token, big, TEXT), 404, "unknown-task")
    problem(
        await calling(guarded.http, "POST", f"/v1/tasks/{task['id']}/result")(anna.token, big, TEXT),
        405,
        "method-not-allowed",
    )
    problem(await done(anna.token, big, TEXT), 413, "too-large")
    problem(await done(anna.token, b"x", TEXT), 415, "unsupported-media-type")
    problem(await done(anna.token, b"{}", JSON), 415, "unsupported-media-type")
    problem(await done(anna.token, b"x", {"Content-Type": MSGPACK}), 409, "different-body")
    open_task = calling(guarded.http, "PUT", f"/v1/tasks/{(await ben.task())['id']}/result")
    problem(await open_task(ben.token, b"\xc1", {"Content-Type": MSGPACK}), 422, "malformed-update")


async def test_a_void_task_is_gone_before_its_body_is_looked_at(guarded: InProcess) -> None:
    """415 before 410, 410 before 400 and 422."""
    (anna,) = await begin(guarded.http, "anna", operator=OPERATOR)
    task = await anna.task()
    await guarded.http.post("/v1/runs/current/stop", headers=bearer(OPERATOR))
    result = calling(guarded.http, "PUT", f"/v1/tasks/{task['id']}/result")
    problem(await result(anna.token, b"{", JSON), 415, "unsupported-media-type")
    problem(await result(anna.token, b"\xc1", {"Content-Type": MSGPACK}), 410, "task-void")


async def test_a_run_in_the_way_is_told_before_what_is_wrong_with_the_next(guarded: InProcess) -> None:
    """403, 413, 415, then 409, then 422."""
    post = calling(guarded.http, "POST", "/v1/runs")
    run = b'{"termination": {"federation_rounds": 1}}'
    assert (await post(OPERATOR, run, JSON)).status_code == 201
    problem(await post(ENROLL, HUGE, TEXT), 403, "forbidden")
    problem(await post(OPERATOR, HUGE, TEXT), 413, "too-large")
    problem(await post(OPERATOR, b"{", TEXT), 415, "unsupported-media-type")
    problem(await post(OPERATOR, b'{"seed": -1}', JSON), 409, "run-active")
    await guarded.http.post("/v1/runs/current/stop", headers=bearer(OPERATOR))
    problem(await post(OPERATOR, b"{", JSON), 400, "not-parseable")
    problem(await post(OPERATOR, b'{"seed": -1}', JSON), 422, "invalid-config")


async def test_an_unknown_run_or_learner_is_404_before_its_body_is_judged(guarded: InProcess) -> None:
    """404, then 413 and 415."""
    await join(guarded.http, "anna", ENROLL)
    for path in ("/v1/runs/0000/stop", "/v1/runs/latest/rounds", "/v1/learners/0000/heartbeat"):
        for body, headers in ((HUGE, JSON), (b"x", TEXT)):
            name = "unknown-learner" if "learners" in path else "unknown-run"
            problem(await calling(guarded.http, "POST", path)(OPERATOR, body, headers), 404, name)


async def test_a_path_without_a_route_is_404_for_everyone(guarded: InProcess) -> None:
    """Also without a credential, whatever the method and the body."""
    for path in (
        "/v2",
        "/v1",
        "/v1/",
        "/v1/learners/",
        "/v1/learners/a/b",
        "/v1/learners/a%2Fb",
        "/admin",
        "//v1/runs",
    ):
        for method in ("GET", "POST", "DELETE"):
            problem(await calling(guarded.http, method, path)(None, HUGE, TEXT), 404, "not-found")


# ---- before a body byte is read
@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """The same, with a socket."""
    async with listening(max_json_bytes=LIMIT, max_model_bytes=2 * LIMIT, **TOKENS) as made:
        yield made


def head(path: str, token: str | None, length: int, media: str, *more: str) -> bytes:
    """The head of a PUT or POST whose body does not come."""
    lines = [f"{'PUT' if 'result' in path else 'POST'} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {media}"]
    lines += [f"Content-Length: {length}", *more] + ([f"Authorization: Bearer {token}"] if token else [])
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("more", [(), ("Expect: 100-continue",)])
async def test_a_body_that_is_withheld_still_gets_its_answer(running: Running, more: tuple[str, ...]) -> None:
    """401, 403, 404, 413 and 415 are told from the head alone, and the connection is closed."""
    anna: Member = await join(running.http, "anna", ENROLL)
    beat = f"{anna.path}/heartbeat"
    json = "application/json"
    for request, status in (
        (head("/v1/learners", None, 100, json, *more), 401),
        (head("/v1/learners", "unknown" * 6, 100, json, *more), 401),
        (head("/v1/learners", VIEWER, 100, json, *more), 403),
        (head("/v1/tasks/0/result", anna.token, 100, MSGPACK, *more), 404),
        (head(beat, anna.token, LIMIT + 1, json, *more), 413),
        (head(beat, anna.token, 10**15, json, *more), 413),
        (head(beat, anna.token, 100, "text/plain", *more), 415),
    ):
        answer = await running.raw(request)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
        assert b"application/problem+json" in answer
        assert b"connection: close" in answer.lower()


async def test_a_body_longer_than_the_limit_is_cut_off(running: Running) -> None:
    """413 as soon as a body of undeclared length passes the limit, and the connection is closed."""
    first = f"POST /v1/learners HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ENROLL}\r\n"
    first += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await running.raw(first.encode() + b"200\r\n" + b" " * 512 + b"\r\n" + b"200\r\n" + b" " * 512 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    assert b"/errors/too-large" in answer


async def test_a_body_that_stops_coming_is_given_up() -> None:
    """408 after the longest silence, for JSON and for weights; nothing is changed and the call may be repeated."""
    async with listening(body_timeout_s=0.2) as running:
        (anna,) = await begin(running.http, "anna")
        task = await anna.task()
        result = f"/v1/tasks/{task['id']}/result"
        for path, media in (("/v1/learners", "application/json"), (result, MSGPACK)):
            answer = await running.raw(head(path, anna.token, 100, media) + b"{")
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"retryable": true' in answer
            assert b"connection: close" in answer.lower()
        assert (await anna.put(task, document(*weights()))).status_code == 201


async def test_a_caller_that_hangs_up_is_no_error_of_the_controller(running: Running) -> None:
    """Half a body and a closed connection: nothing is changed, and no 5xx is counted."""
    (anna,) = await begin(running.http, "anna", operator=OPERATOR)
    task = await anna.task()
    path = f"/v1/tasks/{task['id']}/result"
    with pytest.raises(TimeoutError):
        await running.raw(head(path, anna.token, 1000, MSGPACK) + b"\x83", seconds=0.3)

    async def counted() -> str:
        text = (await running.http.get("/metrics", headers=bearer(OPERATOR))).text
        return "\n".join(line for line in text.splitlines() if 'route="/v1/tasks/{task_id}/result"' in line)

    assert 'status="408"' in await until(counted)
    assert (await anna.put(task, document(*weights()))).status_code == 201
