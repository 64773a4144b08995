"""One request and its answer, however they travel: what the client asks of a transport.

With it: addresses of references, digests of bodies, refusals (RFC 9457) back into the federation's exceptions, and
what tells a controller's answer from one of a proxy in between.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Never, Protocol
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import (
    DigestMismatch,
    DiskFull,
    FederationError,
    NotOfThisContract,
    ProxyUnavailable,
    Unavailable,
    UnexpectedAnswer,
)
from ..weights import MEDIA_TYPE, Buffer, allocate, digest

LOOPBACK_NAMES = ("localhost", "ip6-localhost")
SLOWEST = 64 * 1024  # bytes per second: a body is given this much time on top of the limit


@dataclass(frozen=True)
class Request:
    """A call. `parts` are sent one after the other as the body; `into` takes the answer's body when it is bulk.

    One to be sent `once` is not repeated on a new connection when a kept one is closed: its sender asks what came.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[Buffer] = ()
    into: Download | None = None
    limit_s: float = 30.0
    once: bool = False

    @cached_property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(memoryview(part).nbytes for part in self.parts)

    @property
    def deadline_s(self) -> float:
        """Seconds that the whole exchange may take."""
        bulk = self.length + (self.into.expected if self.into else 0)
        return self.limit_s + bulk / SLOWEST


@dataclass(frozen=True)
class Answer:
    """What came back; header names are lower-case. A bulk body is in the request's `into` instead."""

    request: Request
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """Content-Type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Download:
    """A body that grows over several exchanges: each asks only for what is missing."""

    def __init__(self, expected: int = 0) -> None:
        """`expected` bytes, when they are known; the buffer is then allocated once."""
        self.expected = expected
        self.have = 0
        self.pieces = 0  # exchanges that brought a part of it
        self._buffer = allocate(expected)

    @property
    def headers(self) -> dict[str, str]:
        """Request headers of the next exchange."""
        return {"Range": f"bytes={self.have}-"} if self.have else {}

    def begin(self, status: int, length: int | None) -> None:
        """An answer with a body of `length` bytes begins (None: unknown)."""
        if status != 206:
            self.have = 0
        self.pieces += 1
        self._room(self.have + (length or 0))

    def write(self, data: Buffer) -> None:
        """Append bytes that came."""
        size = memoryview(data).nbytes
        self._room(self.have + size)
        self._buffer[self.have : self.have + size] = data
        self.have += size

    def free(self) -> memoryview:
        """The room that is left, to be written by the socket itself; `wrote` says how much was."""
        return self._buffer[self.have :]

    def wrote(self, size: int) -> None:
        """`size` bytes were written into `free()`."""
        self.have += size

    def body(self) -> memoryview:
        """The whole body."""
        return self._buffer[: self.have]

    def _room(self, size: int) -> None:
        if size > len(self._buffer):
            grown = allocate(max(size, len(self._buffer) * 3 // 2) if self.have else size)
            grown[: self.have] = self._buffer[: self.have]
            self._buffer = grown


class Transport(Protocol):
    """Carries requests."""

    async def send(self, request: Request) -> Answer:
        """The answer, whatever its status; raises Unreachable when there is none, or its body was cut."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


MEMBERS = ("type", "title", "status", "detail", "retryable")
PROBLEM, JSON = "application/problem+json", "application/json"
PASSING = (429, 502, 503, 504)  # of a proxy: what may be otherwise in a moment
METHODS = "let {method} pass there (nginx: limit_except; a firewall: its list of methods)"
SETTINGS = {  # what to do about a proxy that answers so
    401: "let this path pass there without a sign-in (nginx: auth_basic, auth_request)",
    403: METHODS,
    404: "have it pass this path on (nginx: location, proxy_pass)",
    405: METHODS,
    408: "raise its time for bodies (nginx: client_body_timeout)",
    413: "raise its limit on bodies (nginx: client_max_body_size)",
    429: "raise its limits on requests (nginx: limit_req, limit_conn)",
    500: "its error log says why (nginx: no room for bodies, say, which proxy_request_buffering off does not keep)",
    501: METHODS,
    502: "its error log says why (nginx: proxy_request_buffering off passes bodies on as they come)",
    503: "raise its limits on requests (nginx: limit_req, limit_conn), or see why it finds no controller",
    504: "raise its time for answers (nginx: proxy_read_timeout)",
}


def check(answer: Answer, met: bool) -> None:
    """Raise what the controller refused, or what something else than a controller answered.

    `met` is whether there was a controller at this address before.
    """
    if not is_own(answer):
        raise foreign(answer, met)
    if answer.status >= 300:
        raise_problem(answer)


def is_own(answer: Answer) -> bool:
    """Whether a controller gave this answer: a problem of the contract, or what the contract answers with."""
    if answer.status >= 300:
        is_problem = answer.media_type == PROBLEM
        return is_problem and (answer.request.method == "HEAD" or _document(answer) is not None)
    wanted = JSON if answer.request.into is None else MEDIA_TYPE
    return answer.status == 204 or answer.request.method == "HEAD" or answer.media_type == wanted


def foreign(answer: Answer, met: bool) -> UnexpectedAnswer:
    """The error for an answer of something else than a controller; its value `refusal` says what to set where."""
    method, status, by = answer.request.method, answer.status, answer.headers.get("server", "")[:60]
    who = by if by and by.isascii() and by.isprintable() else "something in between"
    said = f"{method} {answer.request.url} was answered {status} by {who}, not by the controller"
    refusal = f"{said}: {SETTINGS.get(status, 'its log says why').format(method=method)}"
    kind = ProxyUnavailable if status in PASSING else NotOfThisContract
    detail = refusal if met or status in PASSING else f"{said}: is this the controller's address?"
    return kind(detail, status=status, refusal=refusal, **_retry_after(answer))


def raise_problem(answer: Answer) -> Never:
    """Raise what the controller refused; HEAD's answers have no document."""
    problem = _document(answer) or {}
    fallback = {503: Unavailable, 507: DiskFull}.get(answer.status, FederationError)
    kind = FederationError.by_name.get(str(problem.get("type", "")).rpartition("/")[2], fallback)
    values = {key: value for key, value in problem.items() if key not in MEMBERS}
    said = f"{answer.request.method} {answer.request.url} was answered {answer.status}"
    raise kind(str(problem.get("detail", kind.title if problem else said)), **(_retry_after(answer) | values))


def _retry_after(answer: Answer) -> dict[str, Any]:
    seconds = answer.headers.get("retry-after", "")
    return {"retry_after_s": int(seconds)} if seconds.isdigit() else {}


def _document(answer: Answer) -> dict[str, Any] | None:
    """A problem of this contract: others name their own types, or none."""
    if answer.media_type != PROBLEM:
        return None
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and "/errors/" in str(problem.get("type")) else None


def join(base: str, reference: str) -> str:
    """The address of a reference (RFC 3986, section 5)."""
    if reference.startswith("../../") and "." not in reference[6:]:  # as usual: urljoin takes ten times as long
        return _two_above(base) + reference[6:]
    return reference if reference.startswith(("http://", "https://")) else urljoin(base, reference)


@functools.lru_cache
def _two_above(url: str) -> str:
    return urljoin(url, "../../")


def origin(url: str) -> tuple[str, str]:
    """Scheme and authority: who gets a credential."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def is_plain(url: str) -> bool:
    """Whether neither TLS nor a proxy of the environment stands between here and there."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxied = ("http" in proxies or "all" in proxies) and not proxy_bypass(parts.hostname or "")
    return parts.scheme == "http" and not proxied


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, which nobody else can listen to."""
    if host.lower() in LOOPBACK_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def in_clear(url: str) -> bool:
    """Whether what is sent to this address, a token say, can be read on its way."""
    parts = urlsplit(url)
    return parts.scheme != "https" and not is_loopback(parts.hostname or "")


INLINE_HASH = 1 << 20  # bytes hashed on the event loop; more goes to a thread


async def digest_of(parts: Sequence[Buffer]) -> str:
    """`sha256-…` of the bytes of `parts`; a long hash leaves the event loop free."""
    if sum(memoryview(part).nbytes for part in parts) <= INLINE_HASH:
        return digest(parts)
    return await asyncio.to_thread(digest, parts)


async def check_digest(body: Buffer, expected: str) -> None:
    """Raise DigestMismatch when the body's digest is another."""
    got = await digest_of([body])
    if got != expected:
        raise DigestMismatch("the downloaded bytes are not those that were asked for", expected=expected, got=got)
