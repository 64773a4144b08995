"""Problem documents (RFC 9457) back into the exceptions of the federation."""

from __future__ import annotations

from typing import Any, Never

import httpx

from ..errors import FederationError, Unavailable, UnexpectedAnswer

MEMBERS = ("type", "title", "status", "detail", "retryable")


def raise_problem(response: httpx.Response) -> Never:
    """Raise what the controller refused; an error that is not of this contract (a proxy's) as UnexpectedAnswer."""
    values: dict[str, Any] = {}
    if (seconds := response.headers.get("Retry-After", "")).isdigit():
        values["retry_after_s"] = int(seconds)
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        problem = response.json()
        kind = FederationError.by_name.get(str(problem.get("type", "")).rpartition("/")[2], FederationError)
        values |= {key: value for key, value in problem.items() if key not in MEMBERS}
        values.pop("detail", None)
        raise kind(problem.get("detail", kind.title), **values)
    said = f"{response.request.method} {response.url} answered {response.status_code} {response.reason_phrase}"
    if response.status_code in (429, 502, 503, 504):
        raise Unavailable(said, **values)
    raise NotOfThisContract(f"{said}: is this the controller's address?")


class NotOfThisContract(UnexpectedAnswer, title="An answer that is not of this contract"):
    """A definite answer of something else than a controller: repeating does not help."""
