"""Web pages of other origins get nothing from a controller without tokens, and its own pages work."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller_api.settings import Settings
from tests.conftest import InProcess, in_process
from tests.controller_api.driving import OPERATOR, TOKENS, bearer, problem, settings

PAGE = "https://page.example"
NAVIGATES = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:81"},
    {"Origin": "http://localhost@evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
]
OWN = [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"}]
REBOUND = (
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "10.1.2.3",
    "[2001:db8::1]",
    "127.0.0.1.nip.io",
    "x",
)
LOOPBACK = (
    "localhost",
    "LOCALHOST:8080",
    "127.0.0.1",
    "127.1.2.3:80",
    "[::1]:8080",
    "[::ffff:127.0.0.1]",
    "ip6-localhost",
)


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
async def test_open_it_obeys_no_other_origin(controller: InProcess, foreign: dict[str, str]) -> None:
    """Neither a `no-cors` POST, which a browser sends without asking, nor a read."""
    for method, path in (
        ("POST", "/v1/shutdown"),
        ("GET", "/v1/federation"),
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/no"),
    ):
        problem(await controller.http.request(method, path, headers=foreign), 403, "forbidden")
    assert (await controller.http.get("/readyz")).json() == {"status": "ready"}


@pytest.mark.parametrize("own", OWN, ids=str)
async def test_open_its_own_page_and_curl_are_obeyed(controller: InProcess, own: dict[str, str]) -> None:
    """As ever."""
    assert (await controller.http.get("/v1/federation", headers=own)).status_code == 200
    assert (await controller.http.get("/", headers=own)).status_code == 200
    assert (await controller.http.post("/v1/shutdown", headers=own)).status_code == 202


async def test_a_link_leads_to_a_page_and_no_further(controller: InProcess) -> None:
    """From anywhere."""
    assert (await controller.http.get("/", headers=NAVIGATES)).status_code == 200
    assert (await controller.http.get("/docs", headers=NAVIGATES)).status_code == 200
    problem(await controller.http.get("/v1/federation", headers=NAVIGATES), 403, "forbidden")
    problem(await controller.http.post("/v1/shutdown", headers=NAVIGATES), 403, "forbidden")


async def test_open_it_answers_under_names_of_loopback_alone(controller: InProcess) -> None:
    """DNS rebinding: the page's own name leads here."""
    for host in REBOUND:
        problem(await controller.http.get("/v1/federation", headers={"Host": host}), 421, "misdirected")
    for host in LOOPBACK:
        assert (await controller.http.get("/v1/federation", headers={"Host": host})).status_code == 200, host


async def test_open_beyond_loopback_it_answers_under_addresses_and_names_of_its_network() -> None:
    """And under those that the operator gives; under none that a page could have."""
    given = settings(host="0.0.0.0", insecure=True, allowed_hosts="fl.example.org, two.example.org")
    async with in_process(given) as open_wide:
        for host in ("10.1.2.3:8080", "controller:8080", "fl.example.org", "two.example.org:80", "localhost"):
            assert (await open_wide.http.get("/v1/federation", headers={"Host": host})).status_code == 200, host
        for host in ("evil.example", "three.example.org"):
            problem(await open_wide.http.get("/v1/federation", headers={"Host": host}), 421, "misdirected")


async def test_with_tokens_any_name_will_do_and_the_pages_are_their_own() -> None:
    """A page of another origin has no token; what needs none is not for it either."""
    async with in_process(settings(**TOKENS)) as guarded:
        for path in ("/", "/docs", "/static/page.js", "/openapi.json"):
            for foreign in FOREIGN:
                problem(await guarded.http.get(path, headers=foreign), 403, "forbidden")
            assert (await guarded.http.get(path, headers={"Host": "fl.example.org"})).status_code == 200
        headers = {"Origin": "https://any.example", **bearer(OPERATOR)}
        assert (await guarded.http.get("/v1/federation", headers=headers)).status_code == 200
        assert "access-control-allow-origin" not in (await guarded.http.get("/v1/federation", headers=headers)).headers


async def test_an_origin_that_is_allowed_gets_proper_cors() -> None:
    """Its pre-flight needs no token, its request does; others' pre-flights are refused."""
    async with in_process(settings(**TOKENS, allowed_origins=PAGE)) as guarded:
        asks: dict[str, Any] = {"Origin": PAGE, "Access-Control-Request-Method": "PATCH"}
        wanted = (
            "authorization,content-type,idempotency-key,if-none-match,range,upload-offset,upload-complete,upload-length"
        )
        asks["Access-Control-Request-Headers"] = wanted
        path = "/v1/tasks/0123456789abcdef/result"
        told = await guarded.http.options(path, headers=asks)
        assert told.status_code in (200, 204)
        assert told.headers["access-control-allow-origin"] == PAGE
        allowed = {name.strip().lower() for name in told.headers["access-control-allow-headers"].split(",")}
        assert set(wanted.split(",")) <= allowed
        assert "PATCH" in told.headers["access-control-allow-methods"]
        answer = await guarded.http.get("/v1/federation", headers={"Origin": PAGE, **bearer(OPERATOR)})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"etag", "content-range", "retry-after", "location", "upload-offset", "upload-complete"} <= exposed
        refused = await guarded.http.get("/v1/federation", headers={"Origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)
        assert (await guarded.http.get("/static/page.js", headers={"Origin": PAGE})).status_code == 200
        other = await guarded.http.options(path, headers={**asks, "Origin": "https://evil.example"})
        assert other.status_code >= 400
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "origin", ["*", "page.example", "https://page.example/", "https://page.example/x", "null", "ftp://a"]
)
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    """At the start."""
    with pytest.raises(ValidationError, match="METIS_ALLOWED_ORIGINS"):
        Settings(**TOKENS, allowed_origins=origin)


def test_open_it_allows_no_origin() -> None:
    """Its pages would all be operators."""
    with pytest.raises(ValidationError, match="needs tokens"):
        Settings(allowed_origins=PAGE)
