"""The gate: decides from a table who may call a route, and how large a body may be, before a body byte is read.

A route that is not in the table is refused, so a forgotten line closes a door instead of opening one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from services.errors import (
    FederationError,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    NotParseable,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
)
from services.weights import MEDIA_TYPE

from ..headers import media_type, number_in
from ..problems import Endpoint, answered, problem
from ..runtime import Metrics
from ..settings import Settings
from ..tokens import Identity, Role, Tokens
from ..transport import Incoming, Pace, Rest
from .origins import Origins

ANYONE: frozenset[Role] = frozenset()
OPERATOR: frozenset[Role] = frozenset({"operator"})
READERS: frozenset[Role] = frozenset({"operator", "viewer"})
LEARNER: frozenset[Role] = frozenset({"operator", "learner"})
ENROLLING: frozenset[Role] = frozenset({"operator", "learner", "enroll"})

JSON = ("application/json",)
PARTIAL = "application/partial-upload"
JOIN_BYTES, HEARTBEAT_BYTES, SCORES_BYTES, FAILURE_BYTES = 1 << 14, 1 << 12, 1 << 17, 1 << 17
WEIGHTS = (MEDIA_TYPE, "application/msgpack", "application/x-msgpack", "application/octet-stream")


@dataclass(frozen=True)
class Policy:
    """Who may call, and what it may send. No roles: anyone. No media types: no body. `json`: bytes, where what belongs
    there is shorter than what an operator may send."""

    roles: frozenset[Role]
    media: tuple[str, ...] = ()
    json: int | None = None

    def limit(self, settings: Settings) -> int:
        """Largest body in bytes."""
        if not self.media:
            return 0
        bulk = MEDIA_TYPE in self.media or PARTIAL in self.media
        return settings.max_model_bytes if bulk else self.json_limit(settings)

    def json_limit(self, settings: Settings) -> int:
        """Largest JSON body in bytes."""
        return settings.max_json_bytes if self.json is None else min(self.json, settings.max_json_bytes)


# `learner_id` must be the caller's own when the caller is a learner.
POLICIES: dict[str, dict[str, Policy]] = {
    "/": {"GET": Policy(ANYONE)},
    "/docs": {"GET": Policy(ANYONE)},
    "/docs/protocol": {"GET": Policy(ANYONE)},
    "/openapi.json": {"GET": Policy(ANYONE)},
    "/static/{name}": {"GET": Policy(ANYONE)},
    "/healthz": {"GET": Policy(ANYONE)},
    "/readyz": {"GET": Policy(ANYONE)},
    "/metrics": {"GET": Policy(READERS)},
    "/v1/learners": {"GET": Policy(READERS), "POST": Policy(ENROLLING, JSON, JOIN_BYTES)},
    "/v1/learners/{learner_id}": {"GET": Policy(READERS | LEARNER), "DELETE": Policy(LEARNER)},
    "/v1/learners/{learner_id}/readmit": {"POST": Policy(OPERATOR)},
    "/v1/learners/{learner_id}/task": {"GET": Policy(LEARNER)},
    "/v1/learners/{learner_id}/heartbeat": {"POST": Policy(LEARNER, JSON, HEARTBEAT_BYTES)},
    "/v1/models/{digest}": {"GET": Policy(LEARNER), "PUT": Policy(OPERATOR, WEIGHTS)},
    "/v1/tasks/{task_id}/result": {
        "PUT": Policy(LEARNER, JSON + WEIGHTS, SCORES_BYTES),
        "HEAD": Policy(LEARNER),
        "PATCH": Policy(LEARNER, (PARTIAL,)),
        "DELETE": Policy(LEARNER),
    },
    "/v1/tasks/{task_id}/scores": {"PUT": Policy(LEARNER, JSON, SCORES_BYTES)},
    "/v1/tasks/{task_id}/failure": {"POST": Policy(LEARNER, JSON, FAILURE_BYTES)},
    "/v1/runs": {"GET": Policy(READERS), "POST": Policy(OPERATOR, JSON)},
    "/v1/runs/{run_id}": {"GET": Policy(READERS)},
    "/v1/runs/{run_id}/rounds": {"GET": Policy(READERS), "POST": Policy(OPERATOR, JSON)},
    "/v1/runs/{run_id}/rounds/{number}/scores": {"PUT": Policy(OPERATOR, JSON, SCORES_BYTES)},
    "/v1/runs/{run_id}/results": {"GET": Policy(READERS)},
    "/v1/runs/{run_id}/model": {"GET": Policy(OPERATOR)},
    "/v1/runs/{run_id}/stop": {"POST": Policy(OPERATOR, JSON)},
    "/v1/events": {"GET": Policy(READERS)},
    "/v1/federation": {"GET": Policy(READERS)},
    "/v1/shutdown": {"POST": Policy(OPERATOR)},
}
OWN_HEAD = (
    "/v1/models/{digest}",
    "/v1/events",
    "/v1/tasks/{task_id}/result",
)  # elsewhere HEAD is GET, whose body the server does not send
TAGGED = (
    "/",
    "/docs",
    "/docs/protocol",
    "/static/{name}",
    "/v1/models/{digest}",
    "/v1/runs/{run_id}/model",
)  # answer with an ETag
ID = "[0-9A-Za-z_-]{1,64}"
SEGMENTS = {"digest": "sha256-[0-9a-f]{64}", "name": r"[0-9A-Za-z_.-]{1,64}"}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"{(\w+)}", lambda m: f"(?P<{m[1]}>{SEGMENTS.get(m[1], ID)})", template))


def _kind(path: str) -> tuple[str, int]:
    """What only a few templates share, the path's among them: the second segment and the number of segments."""
    segments = path.split("/", 5)
    return segments[2] if len(segments) > 3 else "", len(segments)


ROUTES: dict[tuple[str, int], list[tuple[str, re.Pattern[str], dict[str, Policy]]]] = {}
for _template, _methods in POLICIES.items():
    ROUTES.setdefault(_kind(_template), []).append((_template, _pattern(_template), _methods))


def find(path: str) -> tuple[str, Mapping[str, str], dict[str, Policy]] | None:
    """Template, parameters and policies of a path."""
    for template, pattern, methods in ROUTES.get(_kind(path), ()):
        if match := pattern.fullmatch(path):
            return template, match.groupdict(), methods
    return None


class Gate:
    """ASGI middleware; leaves the caller in `scope["state"]["identity"]`."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        tokens: Tokens,
        metrics: Metrics,
        check_known: Callable[[Mapping[str, str], Identity], None],
        hot: Mapping[tuple[str, str], Endpoint],
        pace: Pace,
    ) -> None:
        """`check_known` raises Forbidden or NotFound for a task, learner or run of a path's parameters. `hot` are
        endpoints by method and template that are called from here: the framework's layers cost more than they do.
        `pace` is that of all bodies."""
        self._app = app
        self._hot = hot
        self._check_known = check_known
        self._settings = settings
        self._tokens = tokens
        self._metrics = metrics
        self._pace = pace
        self._origins = Origins(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        found = find(scope["path"])
        template = found[0] if found else "none"
        counted = self._metrics.counting(scope["method"], template, send)
        headers = Headers(scope=scope)
        try:
            body = self._judge(scope, headers, found)
        except FederationError as error:
            has_body = _has_body(headers)
            answer = Rest(headers, None, receive, counted).send if has_body else counted
            await problem(error, close=has_body)(scope, receive, answer)
            return
        if scope["method"] == "HEAD" and template not in OWN_HEAD:
            scope = {**scope, "method": "GET"}
        if body is None:
            await self._pass(scope, receive, receive, counted, found)
            return
        scope["state"]["incoming"] = body
        try:
            await self._pass(scope, body.reader(receive), receive, Rest(headers, body, receive, counted).send, found)
        finally:
            body.end()

    async def _pass(self, scope: Scope, bounded: Receive, receive: Receive, send: Send, found: Any) -> None:
        """What was let in, to its endpoint, which reads its body by `bounded`."""
        template, parameters = found[:2]
        if endpoint := self._hot.get((scope["method"], template)):
            scope["path_params"] = parameters
            response = await answered(endpoint, Request(scope, bounded))
            await response(scope, receive, send)
        else:
            await self._app(scope, bounded, send)

    def _judge(self, scope: Scope, headers: Headers, found: Any) -> Incoming | None:
        """Raise what the caller did wrong, in the contract's order; returns how its body is to be read."""
        known = scope.get("state", {}).pop("known", None)  # it holds the connection
        _check_host(scope)
        self._origins.judge(headers, scope["method"], found[0] if found else "")
        if found is None:
            raise NotFound("there is no such path; see /docs")
        template, parameters, methods = found
        policy = methods.get(scope["method"]) or (methods.get("GET") if scope["method"] == "HEAD" else None)
        if policy is None or policy.roles:
            credential = headers.get("authorization")
            identity = self._tokens.identify(credential)
            scope.setdefault("state", {})["identity"] = identity
            if known is not None and credential is not None:
                known()
            if policy is not None and identity.role not in policy.roles:
                raise Forbidden("this token may not do that")
            if identity.role == "learner" and parameters.get("learner_id", identity.learner) != identity.learner:
                raise Forbidden("this token may not do that")
        if policy is None:
            allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
            raise MethodNotAllowed(f"this path takes {allowed}", allow=allowed)
        if template not in TAGGED and (headers.get("if-match") or "*").strip() != "*":
            raise PreconditionFailed("what is here has no entity tag: leave If-Match out")
        if not _has_body(headers):
            return None
        if policy.roles:
            self._check_known(parameters, identity)
        return self._judge_body(headers, policy)

    def _judge_body(self, headers: Headers, policy: Policy) -> Incoming:
        limit = policy.limit(self._settings)
        declared = headers.get("content-length")
        size = None if declared is None else number_in(declared)
        if declared is not None and size is None:
            raise NotParseable("Content-Length is not a number")
        media = media_type(headers.get("content-type", ""))
        if policy.media and media in JSON:
            limit = min(limit, policy.json_limit(self._settings))
        if size is not None and size > limit:
            if limit == 0:
                raise TooLarge("this call takes no body", limit=0, got=size)
            raise TooLarge(f"the body has {size} bytes, the limit is {limit}", limit=limit, got=size)
        if media not in policy.media:
            accepted = ", ".join(policy.media) or "no body"
            raise UnsupportedMediaType(
                f"send Content-Type {accepted}, not {media or 'none'}", expected=list(policy.media), got=media
            )
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            why = f"send the body as it is, without Content-Encoding {coding[:40]}"
            raise UnsupportedMediaType(why, got=coding[:40], headers={"Accept-Encoding": "identity"})
        return Incoming(self._pace, size, limit)


def _check_host(scope: Scope) -> None:
    """One Host, and one only (RFC 9112, section 3.2)."""
    given = sum(name == b"host" for name, _ in scope["headers"])
    if given != 1 and (given or scope["http_version"] != "1.0"):
        raise NotParseable(f"a request has one Host field, not {given}", got=given)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
