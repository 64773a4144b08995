"""A Redis server as a store reaches it: by URL, a call made again when its connection broke, errors told as ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import InvalidConfig, StoreUnavailable

T = TypeVar("T")
URL = "redis://localhost:6379/0"
PLAIN_URL = re.compile(r"rediss?://([^@/?#]*@)?[^@]*")  # a password with other characters would be taken for a host
PAUSES = (0.1, 0.4)  # seconds between attempts of a call, for a server that is just being restarted
LIMITS = {"socket_connect_timeout": 3.0, "socket_timeout": 15.0, "socket_keepalive": True, "health_check_interval": 30}


class Server:
    """`where` is its address without the password, `client` a client of redis-py."""

    def __init__(self, url: str | None, hostname: str | None, port: int | None) -> None:
        """`hostname` and `port` go before those of `url`, which tells password, database and TLS (`rediss://`).

        Raises StoreUnavailable when the server does not answer, InvalidConfig for what cannot be a server's address.
        """
        self._library = _library()
        self._pool, self.where = _pool(self._library, url or URL, hostname, port)
        self.client = self._library.Redis(connection_pool=self._pool)
        try:
            self.ask(self.client.ping)
        except (TypeError, ValueError):
            raise InvalidConfig("the URL of the model store has parameters that Redis does not know") from None

    def close(self) -> None:
        """Close the connections."""
        self._pool.disconnect()

    def ask(self, work: Callable[[], T]) -> T:
        """What `work` gives, begun anew when the connection broke; raises StoreUnavailable.

        Without its cause: a log that shows the variables of a traceback would show the password that it holds.
        """
        errors = self._library.exceptions
        for pause in (*PAUSES, None):
            try:
                return work()
            except (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError) as error:
                raise self._unavailable("does not let us in", error, "Look at the password in its URL.") from None
            except (errors.ConnectionError, errors.WatchError) as error:  # the latter for a connection lost meanwhile
                if pause is None:
                    raise self._unavailable("does not answer", error, "Is it running?") from None
                time.sleep(pause)
            except errors.TimeoutError as error:  # has taken its time already
                raise self._unavailable("does not answer", error, "Is it overloaded?") from None
            except errors.OutOfMemoryError as error:
                raise self._unavailable("is full", error, "Give it more memory (maxmemory).") from None
            except errors.RedisError as error:
                raise self._unavailable("cannot do this now", error, "See its log.") from None
        raise AssertionError("the last attempt returns or raises")

    def _unavailable(self, what: str, error: Exception, advice: str) -> StoreUnavailable:
        said = str(error).rpartition("caused error: ")[2].rstrip(".")
        return StoreUnavailable(f"Redis at {self.where} {what} ({said}). {advice} The call may be repeated")


def _library() -> Any:
    """The package `redis`, imported when a store needs it."""
    try:
        import redis
    except ImportError:
        raise InvalidConfig(
            "the model store Redis needs the package redis: pip install 'metisfl-rest[redis]', or pip install redis"
        ) from None
    return redis


def _pool(library: Any, url: str, hostname: str | None, port: int | None) -> tuple[Any, str]:
    """Connections to a server, none of them open yet, and its address for people."""
    try:
        given = library.connection.parse_url(url if PLAIN_URL.fullmatch(url) else "")
    except ValueError:  # its text may hold a part of the password
        raise InvalidConfig(
            "the URL of the model store is none of Redis: redis://:password@host:port/database, rediss:// for TLS,"
            " with special characters of the password as %xx"
        ) from None
    told = {name: value for name, value in (("host", hostname), ("port", port)) if value is not None}
    address = {"host": "localhost", "port": 6379, **given, **told}
    once = library.retry.Retry(library.backoff.NoBackoff(), 0)  # the store repeats whole calls
    own = {"retry": once, "protocol": 2, "decode_responses": False}
    return library.ConnectionPool(**{**LIMITS, **address, **own}), f"{address['host']}:{address['port']}"
