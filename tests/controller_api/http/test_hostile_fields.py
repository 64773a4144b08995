"""Header fields, paths and names as long as a head may be, of what makes a careless reader slow: none takes 5 ms."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import controller_api
from controller_api.http.gate import find
from controller_api.transport import Strangers
from controller_api.transport.protocol import HEAD_BYTES
from services import messages as m
from services.config import resolve
from services.errors import FederationError
from services.store import base as keys
from tests.conftest import InProcess, in_process
from tests.controller_api.driving import MSGPACK, OPERATOR, TOKENS, bearer, digest_of, document, settings

LONGEST_S = 0.005  # of processor time
TRIES = 10
LENGTH = HEAD_BYTES - 1024
PARTS = (
    "",
    " ",
    "\t",
    ",",
    ";",
    "=",
    "-",
    "0",
    "a",
    '"',
    "W/",
    ", ",
    "0-0,",
    " -",
    "a=",
    "a,",
    '"",',
    "10.0.0.1,",
    "bytes=",
    "%20",
)
STARTS = ("", "bytes=", "bytes = 0", "bytes=0-", '"sha256-', "Bearer ", "http://", "[", "application/json;")
FIELDS = (
    *(
        "accept",
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
    ),
    *("if-match", "if-none-match", "if-range", "last-event-id", "origin", "range", "sec-fetch-mode", "sec-fetch-site"),
    *("upload-complete", "upload-length", "upload-offset", "x-forwarded-for"),
)
HOSTILE = [start + part * (LENGTH // len(part)) + end for start in STARTS for part in PARTS[1:] for end in ("", "x")]


def quickest(call: Callable[[], Any]) -> float:
    """Seconds of processor time that a call takes."""
    times = []
    for _ in range(TRIES):
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
        if times[-1] < LONGEST_S:
            break
    return min(times)


@pytest.fixture
async def guarded() -> AsyncIterator[InProcess]:
    """A controller with tokens, behind a proxy."""
    async with in_process(
        settings(**TOKENS, trusted_proxies=("10.0.0.0/8",), allowed_origins=("https://a.example",))
    ) as one:
        yield one


def test_every_field_that_is_read_is_tried() -> None:
    """The list above has them all."""
    sources = Path(controller_api.__file__).parent.rglob("*.py")
    read = set()
    for source in sources:
        text = source.read_text()
        read |= set(re.findall(r'headers\.get\(\s*"([A-Za-z-]+)"', text)) | set(re.findall(r'== b"([a-z-]+)"', text))
        read |= set(re.findall(r'_number\(request, "([a-z-]+)"', text))
    assert {name.lower() for name in read} - {"x-forwarded-for"} <= set(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_is_read_at_once(guarded: InProcess, field: str) -> None:
    """On each way that a request can take; whatever it holds, the answer is no 5xx."""
    body = document([1.0])
    digest = digest_of(body)
    operator = {"host": "localhost", **bearer(OPERATOR)}
    put = await guarded.http.put(f"/v1/models/{digest}", content=body, headers={**operator, "Content-Type": MSGPACK})
    assert put.status_code == 201
    ways = (
        ("GET", f"/v1/models/{digest}"),
        ("GET", "/"),
        ("PUT", f"/v1/models/{digest}"),
        ("PATCH", "/v1/tasks/a/result"),
    )
    for (method, path), value in itertools.product(ways, HOSTILE):
        sent = {**operator, field: value}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(), "root_path": "", "scheme": "http", "query_string": b"",
            "server": ("localhost", 80), "client": ("10.0.0.1", 1), "state": {},
            "headers": [(name.lower().encode(), text.encode()) for name, text in sent.items()],
        }  # fmt: skip
        seconds, status = await _answered(guarded.app, scope)
        assert seconds < LONGEST_S, (method, path, value[:20], len(value))
        assert status < 500


async def _answered(app: Any, scope: dict[str, Any]) -> tuple[float, int]:
    """Processor time of the quickest of some tries, and the status."""
    times: list[float] = []
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    for _ in range(TRIES):
        began = time.thread_time()
        await app({**scope, "state": {}}, receive, send)
        times.append(time.thread_time() - began)
        if times[-1] < LONGEST_S:
            break
    return min(times), status


@pytest.mark.parametrize("start", ["/", "/v1/learners/", "/v1/models/sha256-", "/v1/tasks/", "/static/", "/v1/runs/a"])
def test_a_path_is_found_at_once(start: str) -> None:
    """Or not found."""
    for part in ("a", "/", "%", "..", "/a", "sha256-", "_-", "0"):
        for end in ("", "/result", "/x", "\n"):
            path = start + part * (LENGTH // len(part)) + end
            assert quickest(partial(find, path)) < LONGEST_S, (start, part, end)


def test_ids_names_and_metrics_are_judged_at_once() -> None:
    """In messages, in a run's configuration, in a model store's keys."""
    for part in ("a", " ", "-", "a-", "\n", "sha256-", ".", "é"):
        for end in ("", "\n", " "):
            text = part * (LENGTH // len(part)) + end
            judges: list[Callable[[], object]] = [
                partial(m.JoinRequest, name=text),
                partial(resolve, {"initial_model": text, "aggregation_rule": text}, {}),
                partial(resolve, {"termination": {"evaluation_metric": text}}, {}),
                partial(keys.KEY.fullmatch, text),
            ]
            for judge in judges:
                assert quickest(partial(_refused, judge)) < LONGEST_S, (part, end)


def _refused(judge: Callable[[], object]) -> None:
    with contextlib.suppress(ValueError, FederationError):
        judge()


PEERS = ("10.0.0.1,", ",", " ,", "a,", "1.2.3.4, 10.0.0.1,", "::ffff:10.0.0.1,")


def test_what_a_proxy_forwards_is_read_at_once() -> None:
    """However many stand in it."""
    strangers = Strangers(1, ["10.0.0.0/8"])
    for part in PEERS:
        field = (b"x-forwarded-for", (part * (LENGTH // len(part))).encode())
        assert quickest(partial(strangers.asked, object(), "10.0.0.1", [field], lambda: None)) < LONGEST_S, part
