"""Where the controller is and with which token: from Python's parameters, the command line or the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from services.config import ClientParams, ServerParams
from services.errors import InvalidConfig
from services.messages import Event
from services.process import secret, secret_of_file, switched_on
from services.rest import Client, in_clear

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://localhost:8080"
log = logging.getLogger("metis")
TOKENS = ("METIS_TOKEN", "METIS_OPERATOR_TOKEN")  # each also as NAME_FILE, the path of a file that holds it


@dataclass(frozen=True)
class Connection:
    """How to reach one controller. `transport` and `events` stand in for the network in one process with the app."""

    url: str
    token: str | None = field(default=None, repr=False)
    root_certificate: str | None = None
    transport: httpx.AsyncBaseTransport | None = None
    events: Callable[[int], AsyncIterator[Event]] | None = None

    def client(self, patience_s: float, on_retry: Callable[[BaseException, float], None] | None = None) -> Client:
        """A client that repeats what fails for a passing reason for `patience_s` seconds."""
        try:
            return Client(
                self.url,
                self.token,
                root_certificate=self.root_certificate,
                patience_s=patience_s,
                transport=self.transport,
                on_retry=on_retry,
            )
        except OSError as error:  # ssl.SSLError is one
            raise InvalidConfig(f"root certificate {self.root_certificate}: {error}; it must be a PEM file") from error


def connection_to(
    controller: ServerParams | ClientParams | str | None,
    token: str | None = None,
    root_certificate: str | None = None,
    require_tls: bool | None = None,
) -> Connection:
    """The connection to `controller`; what is not given is taken from the environment.

    A token that would travel in clear to another machine is warned of; with `require_tls` InvalidConfig is raised.
    """
    if isinstance(controller, ServerParams | ClientParams):
        root_certificate = root_certificate or controller.root_certificate
        controller = controller.url
    url = checked_url(controller or os.environ.get("METIS_CONTROLLER_URL") or DEFAULT_URL)
    root_certificate = root_certificate or os.environ.get("METIS_ROOT_CERTIFICATE") or None
    token = checked_token(token or token_of_environment())
    if token is not None and in_clear(url):
        if _required_tls() if require_tls is None else require_tls:
            raise InvalidConfig(f"TLS is required, and {url} would get the token in clear: give an https address")
        log.warning("metis: the token travels in clear to %s: give an https address", url)
    return Connection(url, token, root_certificate)


def _required_tls() -> bool:
    try:
        return switched_on("METIS_REQUIRE_TLS")
    except ValueError as error:
        raise InvalidConfig(f"{error}") from error


def checked_url(url: str) -> str:
    """`url` with `http://` where it names no scheme; raises InvalidConfig when it cannot be a controller's."""
    full = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(full)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidConfig(f"{url!r} is not the address of a controller; write it as {DEFAULT_URL}", got=url)
    everywhere = parts.hostname in ("0.0.0.0", "::")  # an address to listen on, not one to call
    return (
        full
        if not everywhere
        else full.replace(parts.hostname or "", "127.0.0.1", 1).replace("[127.0.0.1]", "127.0.0.1")
    )


def token_of_environment() -> str | None:
    """The first of `TOKENS` that the environment holds, itself or as the path of a file."""
    try:
        return secret(*TOKENS)
    except ValueError as error:
        raise InvalidConfig(f"{error}") from error


def token_of_file(path: str | Path) -> str:
    """The token in the file; raises InvalidConfig naming the file when it cannot be read or is empty."""
    try:
        return secret_of_file(path)
    except ValueError as error:
        raise InvalidConfig(f"token file {error}", file=str(path)) from error


def checked_token(token: str | None) -> str | None:
    """`token` if it can stand in a header; the message does not repeat it."""
    if token is None or (token.isascii() and token.isprintable() and " " not in token):
        return token
    raise InvalidConfig("the token holds a character that no token has; is it the right file?")
