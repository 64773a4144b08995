"""How `Redis` is reached: address, password, TLS, what is told when it cannot be, and that no password is shown."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from services import ModelStoreConfig
from services.errors import FederationError, InvalidConfig, StoreUnavailable
from services.store import Redis, open_store
from tests.conftest import free_port
from tests.controller_api.webhooks.receiver import certificate
from tests.redis_server import RedisServer

Launch = Callable[..., RedisServer]
PASSWORD = "p@ss/canary:7c41"
QUOTED = "p%40ss%2Fcanary%3A7c41"


def shown(error: BaseException, variables: bool = False) -> str:
    """All that a log or a terminal would show of it; some logs show the variables of each frame."""
    told = traceback.TracebackException.from_exception(error, capture_locals=variables)
    return "".join(told.format()) + repr(error)


def test_password_in_the_url_and_address_beside_it(own_redis: Launch, tmp_path: Path) -> None:
    """Hostname and port of the configuration go before those of the URL, which tells the password and the database."""
    server = own_redis("--requirepass", PASSWORD)
    config = ModelStoreConfig("Redis", 1, "127.0.0.1", server.port, f"redis://:{QUOTED}@elsewhere.invalid:1/3", "ours:")  # type: ignore[arg-type]
    store = open_store(config, tmp_path)
    store.put("a", [b"x"])
    assert bytes(store.get("a")) == b"x"
    assert isinstance(store, Redis)
    assert store._client.info("keyspace")["db3"]["keys"] == 1
    assert repr(store) == f"Redis(127.0.0.1:{server.port}, prefix='ours:')"
    assert "canary" not in repr(config)
    store.close()


@pytest.mark.parametrize("credential", ["", ":canary-wrong@", "nobody:canary-wrong@"])
def test_a_wrong_password_is_told_but_not_shown(own_redis: Launch, credential: str) -> None:
    """At once, with the address and what to look at; neither the right nor the wrong one is in the error."""
    server = own_redis("--requirepass", PASSWORD)
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{server.port} does not let us in") as caught:
        Redis(f"redis://{credential}127.0.0.1:{server.port}/0")
    assert "password in its URL" in caught.value.detail
    assert "canary" not in shown(caught.value)


def test_a_user_who_may_not_write_is_told(own_redis: Launch) -> None:
    """Rights that a user of Redis lacks are no reason to go on."""
    server = own_redis("--user", "reader", "on", ">canary", "+ping", "+hmget", "~*")
    store = Redis(f"redis://reader:canary@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnavailable, match="does not let us in") as caught:
        store.put("a", [b"x"])
    assert "canary" not in shown(caught.value)
    store.close()


def test_a_server_that_is_not_there_is_told_at_the_start() -> None:
    """Which one, and what to do; not later, when a learner sends its update."""
    pytest.importorskip("redis")
    port = free_port()
    with pytest.raises(StoreUnavailable, match=rf"Redis at 127\.0\.0\.1:{port} does not answer .*Is it running\?"):
        Redis(f"redis://:canary@127.0.0.1:{port}/0")


def test_tls(own_redis: Launch, tmp_path: Path) -> None:
    """`rediss://` verifies the server against the given authority, and talks to no other."""
    made, key = certificate(tmp_path, "localhost")
    port = free_port()
    files = ("--tls-cert-file", str(made), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    own_redis("--tls-port", str(port), *files)
    store = Redis(f"rediss://localhost:{port}/0?ssl_ca_certs={made}")
    store.put("a", [b"secret"])
    assert bytes(store.get("a")) == b"secret"
    store.close()
    with pytest.raises(StoreUnavailable, match=rf"Redis at localhost:{port} does not answer"):
        Redis(f"rediss://localhost:{port}/0")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@localhost:6379/0",  # its special characters are not written as %xx
        "http://:canary@localhost:6379",
        "canary",
        "unix:///canary.sock",
        "redis://:canary@localhost:notaport/0",
    ],
)
def test_what_is_no_url_is_refused_and_not_shown(url: str) -> None:
    """The error says how it is written, and nothing of what was."""
    pytest.importorskip("redis")
    with pytest.raises(InvalidConfig, match="rediss://") as caught:
        Redis(url)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_parameters_that_redis_does_not_know_are_refused(redis_server: RedisServer) -> None:
    """A typing error in the URL is found at the start."""
    with pytest.raises(InvalidConfig, match="parameters"):
        Redis(f"{redis_server.url}?ssl_ca_cert=ca.pem")


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other stores work without it."""
    monkeypatch.setitem(sys.modules, "redis", None)
    open_store(ModelStoreConfig("OnDisk"), tmp_path).close()
    with pytest.raises(InvalidConfig, match=r"pip install 'metisfl-rest\[redis\]'"):
        open_store(ModelStoreConfig("Redis"), tmp_path)


def test_nothing_is_logged_of_the_password(own_redis: Launch, caplog: pytest.LogCaptureFixture) -> None:
    """At the most talkative level, over a put, a loss and a return."""
    caplog.set_level(logging.DEBUG)
    server = own_redis("--requirepass", PASSWORD)
    store = Redis(f"redis://:{QUOTED}@127.0.0.1:{server.port}/0")
    store.put("a", [b"x"])
    server.kill()
    with pytest.raises(FederationError) as caught:
        store.put("a", [b"x"])
    server.start()
    store.put("a", [b"x"])
    store._client.config_set("requirepass", "another")
    store._server.close()
    with pytest.raises(StoreUnavailable, match="does not let us in") as locked_out:
        store.get("a")
    for text in (caplog.text, shown(caught.value, True), shown(locked_out.value, True), repr(store)):
        assert "canary" not in text
    store.close()
