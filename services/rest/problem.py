"""Problem documents (RFC 9457) back into the exceptions of the federation."""

from __future__ import annotations

import json
from typing import Any, Never

from ..errors import DiskFull, FederationError, NotOfThisContract, Unavailable
from .exchange import Answer

MEMBERS = ("type", "title", "status", "detail", "retryable")


def raise_problem(answer: Answer) -> Never:
    """Raise what the controller refused; an error that is not of this contract (a proxy's) as NotOfThisContract."""
    values: dict[str, Any] = {}
    if (seconds := answer.headers.get("retry-after", "")).isdigit():
        values["retry_after_s"] = int(seconds)
    if problem := _document(answer):
        kind = FederationError.by_name.get(str(problem.get("type", "")).rpartition("/")[2], FederationError)
        values |= {key: value for key, value in problem.items() if key not in MEMBERS}
        raise kind(str(problem.get("detail", kind.title)), **values)
    said = f"{answer.request.method} {answer.request.url} answered {answer.status}"
    if answer.status in (429, 502, 503, 504):
        raise Unavailable(said, **values)
    if answer.status == 507:  # to HEAD, whose answer has no document
        raise DiskFull(said, **values)
    raise NotOfThisContract(f"{said}: is this the controller's address?")


def _document(answer: Answer) -> dict[str, Any] | None:
    if answer.media_type != "application/problem+json":
        return None
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return None
    return problem if isinstance(problem, dict) else None
