"""What a web page in somebody's browser may ask of this controller.

A browser sends what any page tells it to, from within the network that it is in. Without tokens that alone would make
every page the operator, so a controller that is open answers under names alone that no page can point at it (DNS
rebinding), and answers no request that another origin's page began. With tokens a page that has none gets nowhere; the
paths that need no token are kept for their own pages all the same.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from services.errors import Forbidden, Misdirected
from services.rest import is_loopback

from ..settings import Settings

PAGES = ("/", "/docs", "/docs/protocol")  # a link may lead here from anywhere
OWN = (*PAGES, "/static/{name}", "/openapi.json")  # what these pages are made of
ASKED = (  # by requests of the contract; what a browser lets any page ask is not among them
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "If-Range", "Last-Event-ID"),
    *("Range", "Upload-Complete", "Upload-Length", "Upload-Offset"),
)
TOLD = (
    *("Accept-Ranges", "Allow", "Content-Range", "ETag", "Location", "Retry-After", "WWW-Authenticate"),
    *("Upload-Complete", "Upload-Length", "Upload-Limit", "Upload-Offset"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PREFLIGHT_S = 600  # that a browser may remember what it was told


def shared(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The app, for pages of these origins too (the Fetch standard's CORS protocol)."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=ASKED,
        expose_headers=TOLD,
        max_age=PREFLIGHT_S,
    )


class Origins:
    """Of one controller, by its settings."""

    def __init__(self, settings: Settings) -> None:
        self._open = settings.open
        self._near = settings.on_loopback
        self._names = frozenset((settings.host, *settings.allowed_hosts))
        self._allowed = frozenset(settings.allowed_origins)

    def judge(self, headers: Headers, method: str, template: str) -> None:
        """Raise Misdirected for a name that is not this controller's, Forbidden for another origin's request."""
        host = headers.get("host", "")
        if self._open and host and not self._is_own(host):
            raise Misdirected(
                f"a controller without tokens does not answer under the name {host[:80]!r}: use localhost, set tokens,"
                " or name it in METIS_ALLOWED_HOSTS",
                got=host[:80],
            )
        if not (self._open or template in OWN):
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._allowed or (origin is None and site in (None, "same-origin", "none")):
            return
        if method == "GET" and template in PAGES and headers.get("sec-fetch-mode") == "navigate":
            return
        told = host if origin is None else origin.partition("://")[2]
        if site not in (None, "same-origin") or told.lower() != host.lower():
            raise Forbidden(
                "this request comes from a web page of another origin: an operator can allow it with"
                " METIS_ALLOWED_ORIGINS once tokens are set"
            )

    def _is_own(self, host: str) -> bool:
        name = (host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]).lower()
        if name in self._names or is_loopback(name):
            return True
        if self._near:
            return False
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return "." not in name  # a name within its own network is no page's to give
