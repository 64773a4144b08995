"""Every route for every role, against a matrix that was written by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from controller_api.http.gate import POLICIES
from tests.conftest import InProcess, in_process
from tests.controller_api.driving import ENROLL, OPERATOR, TOKENS, VIEWER, Member, bearer, join, problem, seen, settings

ROLES = ("none", "unknown", "enroll", "own", "other", "viewer", "operator")
# "-" 401, "x" 403, "+" goes on to the route. `own` is the learner of the path, or the one whose task it is.
MATRIX = {
    ("GET", "/"): "+++++++",
    ("GET", "/docs"): "+++++++",
    ("GET", "/docs/protocol"): "+++++++",
    ("GET", "/openapi.json"): "+++++++",
    ("GET", "/static/{name}"): "+++++++",
    ("GET", "/healthz"): "+++++++",
    ("GET", "/readyz"): "+++++++",
    ("GET", "/metrics"): "--xxx++",
    ("GET", "/v1/learners"): "--xxx++",
    ("POST", "/v1/learners"): "--+++x+",
    ("GET", "/v1/learners/{learner_id}"): "--x+x++",
    ("DELETE", "/v1/learners/{learner_id}"): "--x+xx+",
    ("POST", "/v1/learners/{learner_id}/readmit"): "--xxxx+",
    ("GET", "/v1/learners/{learner_id}/task"): "--x+xx+",
    ("POST", "/v1/learners/{learner_id}/heartbeat"): "--x+xx+",
    ("GET", "/v1/models/{digest}"): "--x+xx+",
    ("PUT", "/v1/models/{digest}"): "--xxxx+",
    ("PUT", "/v1/tasks/{task_id}/result"): "--x+xx+",
    ("HEAD", "/v1/tasks/{task_id}/result"): "--x+xx+",
    ("PATCH", "/v1/tasks/{task_id}/result"): "--x+xx+",
    ("DELETE", "/v1/tasks/{task_id}/result"): "--x+xx+",
    ("PUT", "/v1/tasks/{task_id}/scores"): "--x+xx+",
    ("POST", "/v1/tasks/{task_id}/failure"): "--x+xx+",
    ("GET", "/v1/runs"): "--xxx++",
    ("POST", "/v1/runs"): "--xxxx+",
    ("GET", "/v1/runs/{run_id}"): "--xxx++",
    ("GET", "/v1/runs/{run_id}/rounds"): "--xxx++",
    ("POST", "/v1/runs/{run_id}/rounds"): "--xxxx+",
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/scores"): "--xxxx+",
    ("GET", "/v1/runs/{run_id}/results"): "--xxx++",
    ("GET", "/v1/runs/{run_id}/model"): "--xxxx+",
    ("POST", "/v1/runs/{run_id}/stop"): "--xxxx+",
    ("GET", "/v1/events"): "--xxx++",
    ("GET", "/v1/federation"): "--xxx++",
    ("POST", "/v1/shutdown"): "--xxxx+",
}
READABLE = {path for method, path in MATRIX if method == "GET"}


class Guarded:
    """A controller with tokens: a run that waits for the update of the learner `own`, and a learner `other`."""

    def __init__(self, running: InProcess, own: Member, other: Member, task: dict[str, Any]) -> None:
        self.http = running.http
        self.app = running.app
        self.task = task
        self.own, self.other = own, other
        self.names = {"learner_id": own.id, "task_id": task["id"], "run_id": "current", "name": "page.css"}
        self.names["number"] = "1"
        self.names["digest"] = task["model"]["digest"]
        self.tokens = dict(
            zip(ROLES, (None, "unknown" * 6, ENROLL, own.token, other.token, VIEWER, OPERATOR), strict=True)
        )

    async def call(self, role: str, method: str, template: str, **more: Any) -> httpx.Response:
        """A call without a body; the header is one that the event stream refuses, so that it ends."""
        headers = {**bearer(self.tokens[role]), "Last-Event-ID": "none", **more.pop("headers", {})}
        return await self.http.request(method, template.format(**self.names), headers=headers, **more)


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    """See Guarded."""
    async with in_process(settings(**TOKENS)) as running:
        own = await join(running.http, "own", ENROLL)
        run = {"termination": {"federation_rounds": 2}}
        await running.http.post("/v1/runs", json=run, headers=bearer(OPERATOR))
        await own.work()
        task = await own.task()
        yield Guarded(running, own, await join(running.http, "other", ENROLL), task)


def served(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Method and path of every route; newer versions of FastAPI keep an included router whole."""
    for route in routes:
        if router := getattr(route, "original_router", None):
            yield from served(router.routes)
        else:
            methods = route.methods or {"GET"}
            yield from ((method, route.path) for method in methods - ({"HEAD"} if "GET" in methods else set()))


def test_every_route_has_a_policy_and_every_policy_a_route(guarded: Guarded) -> None:
    """Table, application and this file's matrix speak of the same calls: a route without a policy fails here."""
    table = {(method, path) for path, methods in POLICIES.items() for method in methods}
    assert set(served(guarded.app.routes)) == table == set(MATRIX)


async def test_a_route_without_a_policy_is_refused(guarded: Guarded) -> None:
    """Forgetting the table's line closes the door, also to the operator."""
    guarded.app.router.routes.append(Route("/v1/forgotten", lambda _: PlainTextResponse("open")))
    problem(await guarded.call("operator", "GET", "/v1/forgotten"), 404, "not-found")


@pytest.mark.parametrize(("method", "template"), MATRIX)
async def test_who_may_call(guarded: Guarded, method: str, template: str) -> None:
    """401 and 403 as the matrix says, HEAD like GET; no refused call changes anything."""
    before = await seen(guarded.http, OPERATOR)
    verdicts = dict(zip(ROLES, MATRIX[method, template], strict=True))
    for role, verdict in verdicts.items():
        for one in (method, "HEAD") if method == "GET" and verdict != "+" else (method,):
            if verdict == "+":
                continue
            answer = await guarded.call(role, one, template)
            assert (role, answer.status_code) == (role, 401 if verdict == "-" else 403)
            if one != "HEAD":
                problem(answer, *((401, "unauthenticated") if verdict == "-" else (403, "forbidden")))
    assert await seen(guarded.http, OPERATOR) == before
    for role, verdict in verdicts.items():
        if verdict == "+":
            assert (role, (await guarded.call(role, method, template)).status_code not in (401, 403)) == (role, True)


async def test_an_unauthenticated_answer_is_always_the_same(guarded: Guarded) -> None:
    """One body and one challenge, whatever was asked for: of those without a token, and of those with a wrong one."""
    none: list[dict[str, Any]] = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {OPERATOR}"},
        {"Authorization": OPERATOR},
    ]
    wrong: list[dict[str, Any]] = [bearer("unknown" * 6), bearer(OPERATOR[:-1]), {"Authorization": b"Bearer \xff\xfe"}]
    paths = ("/v1/federation", "/v1/learners/nobody", guarded.own.path, "/v1/models/sha256-" + "0" * 64)
    for credentials, challenge in ((none, "Bearer"), (wrong, 'Bearer error="invalid_token"')):
        answers = [await guarded.http.get(path, headers=given) for given in credentials for path in paths]
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.headers["www-authenticate"] for answer in answers} == {challenge}
        assert len({answer.content for answer in answers}) == 1


async def test_the_scheme_is_matched_in_any_case(guarded: Guarded) -> None:
    """RFC 9110, 11.1: `bearer` is `Bearer`."""
    assert (await guarded.http.get("/v1/runs", headers={"Authorization": f"bearer {VIEWER}"})).status_code == 200


async def test_a_learner_is_who_its_token_says_not_who_its_path_says(guarded: Guarded) -> None:
    """Another's path, task or model is 403, and the roster does not say whether an id exists."""
    other = guarded.other
    for path in (guarded.own.path, "/v1/learners/nobody"):
        problem(await other.call("GET", f"{path}/task"), 403, "forbidden")
        problem(await other.call("POST", f"{path}/heartbeat", json={}), 403, "forbidden")
        problem(await other.call("DELETE", path), 403, "forbidden")
    problem(await other.put(guarded.task, b"\xc1"), 403, "forbidden")


@pytest.mark.parametrize("template", list(POLICIES))
async def test_another_method_is_405_with_what_the_path_takes(guarded: Guarded, template: str) -> None:
    """`Allow` lists the methods of the table, and HEAD beside GET."""
    answer = await guarded.call("operator", "TRACE", template)
    problem(answer, 405, "method-not-allowed")
    expected = {method for method, path in MATRIX if path == template} | ({"HEAD"} if template in READABLE else set())
    assert set(answer.headers["allow"].split(", ")) == expected


# ---- a controller without tokens
async def test_without_tokens_the_caller_is_the_operator(controller: InProcess) -> None:
    """Loopback and no token configured: everything is open to a caller without a credential."""
    for method, template in MATRIX:
        if method == "GET" and "{" not in template and template != "/v1/events":
            assert (await controller.http.get(template)).status_code == 200
    assert (await controller.http.get("/v1/federation")).json()["open"] is True


async def test_without_tokens_a_credential_that_is_sent_is_judged(controller: InProcess) -> None:
    """Unknown: 401. A learner's: it is that learner, not the operator."""
    anna, ben = [await join(controller.http, name) for name in ("anna", "ben")]
    problem(await controller.http.get("/v1/federation", headers=bearer("x" * 43)), 401, "unauthenticated")
    problem(
        await controller.http.get("/v1/federation", headers={"Authorization": "Basic eDp5"}), 401, "unauthenticated"
    )
    problem(await anna.call("GET", "/v1/federation"), 403, "forbidden")
    problem(await anna.call("GET", f"{ben.path}/task"), 403, "forbidden")
    assert (await anna.call("GET", anna.path)).status_code == 200
