"""Where a webhook may go, against server-side request forgery: which URLs, and which addresses behind them.

A name is resolved once, all of its addresses are judged, and the caller connects to one of these addresses: a name that
leads elsewhere at the next look-up (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from services.errors import InvalidRequest, Unavailable

from ..settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

DEFAULT_PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024  # below it are the services of the machine itself
RESOLVE_S = 5.0
RESOLVING_AT_ONCE = 4  # threads of their own: a slow name server must not hold up the aggregations
# Everything else in IPv6 is loopback, link-local, multicast, reserved, or another way to write an IPv4 address:
# ::/96, ::ffff:0:0/96, ::ffff:0:0:0/96 (RFC 2765), 64:ff9b::/96 (RFC 6052), 64:ff9b:1::/48 (RFC 8215).
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# What ipaddress of some supported Python calls global and is not: 6to4 and its relays (RFC 7526), protocol assignments
# (RFC 6890), documentation (RFC 9637).
NOT_GLOBAL = [ipaddress.ip_network(n) for n in ("2002::/16", "192.88.99.0/24", "192.0.0.0/24", "3fff::/20")]


@dataclass(frozen=True)
class Target:
    """A callback that may be called: its URL, and the addresses that its host has."""

    url: httpx.URL
    addresses: tuple[Address, ...]


class Addresses:
    """Judges callbacks by the operator's settings. `resolve(host, port)` gives the addresses of a name."""

    def __init__(self, settings: Settings, resolve: Resolver | None = None) -> None:
        self._networks = [ipaddress.ip_network(network) for network in settings.callback_networks]
        self._to_loopback = settings.open and settings.on_loopback  # whoever calls is on this machine anyway
        self._resolve = resolve or _look_up()

    async def target(self, callback: str) -> Target:
        """The callback's URL and addresses.

        Raises InvalidRequest, which says why, for one that is not allowed; Unavailable when its name cannot be
        resolved now.
        """
        url = _parse(callback)
        host = url.raw_host.decode("ascii")
        addresses = tuple(dict.fromkeys([_plain(text) for text in await self._addresses(host, _port(url))]))
        if not addresses:
            raise InvalidRequest(f"callback_url: {host} has no address", host=host)
        for address in addresses:
            if why := self._refusal(address):
                raise InvalidRequest(f"callback_url: {host} {why}", host=host)
        return Target(url, addresses)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        try:
            async with asyncio.timeout(RESOLVE_S):
                return await self._resolve(host, port)
        except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
            if isinstance(error, TimeoutError) or getattr(error, "errno", None) == socket.EAI_AGAIN:
                raise Unavailable(f"callback_url: {host} cannot be resolved now", host=host) from error
            raise InvalidRequest(
                f"callback_url: the controller cannot resolve {host}: give a URL under which it reaches this learner",
                host=host,
            ) from error

    def _refusal(self, address: Address) -> str | None:
        """Why webhooks may not go to this address; None when they may."""
        allowing = [network for network in self._networks if address in network]
        if address.is_loopback:
            if self._to_loopback or any(network.is_loopback for network in allowing):
                return None
            return (
                "leads to loopback, which is allowed while the controller listens there and without tokens, or when an"
                " operator allows it with METIS_CALLBACK_NETWORKS"
            )
        if address.is_multicast or address.is_unspecified:
            return "leads to an address that is no machine's"
        if allowing or _is_global(address):
            return None
        return "leads to an address that is not public; an operator can allow its network with METIS_CALLBACK_NETWORKS"


def _parse(callback: str) -> httpx.URL:
    try:
        url = httpx.URL(callback)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidRequest(f"callback_url is not a URL: {error}") from error
    if url.scheme not in DEFAULT_PORTS or not url.host:
        raise InvalidRequest("callback_url must be an http or https URL with a host")
    if url.userinfo:
        raise InvalidRequest("callback_url must not hold a user name or password: webhooks are signed")
    port = _port(url)
    if port not in DEFAULT_PORTS.values() and not FIRST_FREE_PORT <= port <= 65535:
        raise InvalidRequest(f"callback_url: port {port} is not allowed: use 80, 443, or 1024 to 65535", got=port)
    return url


def _port(url: httpx.URL) -> int:
    return DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _plain(text: str) -> Address:
    """The address, an IPv4 address in IPv6 clothes (::ffff:0:0/96) as the IPv4 address that it stands for."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_global(address: Address) -> bool:
    if address.version == 6 and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not any(address in network for network in NOT_GLOBAL)


def _look_up() -> Resolver:
    """The system's resolver."""
    threads = ThreadPoolExecutor(RESOLVING_AT_ONCE, thread_name_prefix="resolve")

    async def look_up(host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return [str(address[4][0]) for address in found]

    return look_up
