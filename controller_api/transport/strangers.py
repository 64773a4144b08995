"""Connections that have shown no valid token: so many of one address, and then the oldest of them goes.

One that has shown one is no stranger any more, for as long as it lives. A trusted proxy's connections carry requests of
many: each is a stranger's while it brings one request without a token, and that of the address which the proxy tells.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

MOST_PROXIES = 8  # one behind the other
LONGEST_ADDRESS = 64  # characters


class Strangers:
    """Of one controller; None for `most` bounds nothing."""

    def __init__(self, most: int | None, proxies: Sequence[str] = ()) -> None:
        self._most = most
        self._proxies = [ipaddress.ip_network(network) for network in proxies]
        self._of: dict[str, OrderedDict[Any, Callable[[], None]]] = {}  # by address: connections, oldest first
        self._address: dict[Any, str] = {}  # of each of these connections

    def came(self, connection: Any, peer: str, end: Callable[[], None]) -> None:
        """A new connection, which `end` ends."""
        if self._most is not None and not self._is_proxy(peer):
            self._note(connection, peer, end)

    def asked(
        self, connection: Any, peer: str, headers: Iterable[tuple[bytes, bytes]], end: Callable[[], None]
    ) -> None:
        """It sends a request: one that came from a proxy is of whomever the proxy says."""
        if self._most is None or not self._is_proxy(peer):
            return
        self.forget(connection)
        told = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
        for hop in reversed([one.strip() for one in told.rsplit(",", MOST_PROXIES)[-MOST_PROXIES:]]):
            if not self._is_proxy(hop):
                self._note(connection, hop[:LONGEST_ADDRESS], end)
                return

    def answered(self, connection: Any, peer: str) -> None:
        """Its request was answered: a proxy's connection is nobody's until the next one."""
        if self._proxies and self._is_proxy(peer):
            self.forget(connection)

    def forget(self, connection: Any) -> None:
        """It has shown a token, or is gone."""
        address = self._address.pop(connection, None)
        if address is not None:
            del self._of[address][connection]
            if not self._of[address]:
                del self._of[address]

    def _note(self, connection: Any, address: str, end: Callable[[], None]) -> None:
        of_it = self._of.setdefault(address, OrderedDict())
        of_it[connection] = end
        self._address[connection] = address
        if self._most is not None and len(of_it) > self._most:
            oldest, end_oldest = next(iter(of_it.items()))
            self.forget(oldest)
            end_oldest()

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)
