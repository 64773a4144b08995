"""Addresses: below the controller's, on its origin, and whether anything stands before it."""

from __future__ import annotations

import functools
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass


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
