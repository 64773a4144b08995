"""Who is calling: bearer tokens, stored hashed, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from services.errors import Unauthenticated
from services.rest import secret_of

INVALID_TOKEN = 'Bearer error="invalid_token"'  # RFC 6750, section 3.1
Role = Literal["enroll", "learner", "operator", "viewer"]


@dataclass(frozen=True)
class Identity:
    """A caller; `learner` is set for the role learner."""

    role: Role
    learner: str | None = None


OPERATOR = Identity("operator")


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def new_webhook_secret() -> str:
    """256 random bits, in the form of Standard Webhooks."""
    return secret_of(secrets.token_bytes(32))


def hashed(token: str) -> bytes:
    """What is kept of a token; a token has 256 random bits, so it needs neither salt nor stretching."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Tokens:
    """The configured tokens, and those of the learners by way of `find_learner(hash) -> id`."""

    def __init__(self, configured: dict[Role, str], find_learner: Callable[[bytes], str | None]) -> None:
        self._configured: dict[Role, bytes] = {role: hashed(token) for role, token in configured.items()}
        self._find_learner = find_learner

    def identify(self, authorization: str | None) -> Identity:
        """Who presents this `Authorization` header; raises Unauthenticated. Without tokens, nobody is the operator."""
        if authorization is None:
            if not self._configured:
                return OPERATOR
            raise Unauthenticated("send a token: Authorization: Bearer <token>")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("send a token: Authorization: Bearer <token>")
        seen = hashed(token.strip())
        matches = [role for role, known in self._configured.items() if hmac.compare_digest(known, seen)]
        if matches:
            return Identity(matches[0])
        learner = self._find_learner(seen)
        if learner is None:
            raise Unauthenticated(
                "this token is not known here: an operator's, a viewer's or the enrolment token is another one, a"
                " learner's ended when it left: enrol again",
                headers={"WWW-Authenticate": INVALID_TOKEN},
            )
        return Identity("learner", learner)
