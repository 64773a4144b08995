"""One request and its answer, however they travel: what the client asks of a transport.

With it: addresses of references, digests of bodies, and refusals (RFC 9457) back into the federation's exceptions.
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

from ..errors import DigestMismatch, DiskFull, FederationError, NotOfThisContract, Unavailable
from ..weights import Buffer, allocate, digest

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
