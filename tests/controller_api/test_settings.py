"""A controller that is told of Redis by its settings: which address, from where, and that its password is not shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from controller_api.app import create_app
from controller_api.server import settings_from_environment
from controller_api.settings import Settings
from services import ModelStoreConfig
from services.errors import InvalidConfig
from services.store import Redis
from tests.conftest import Process, folder_of_its_own, free_port, serve
from tests.controller_api.driving import MSGPACK, digest_of, model, weights
from tests.redis_server import RedisServer, require_redis

Launch = Callable[..., RedisServer]
CANARY = "canary-2f6d"


def store_of(settings: Settings, config: ModelStoreConfig | None = None) -> Redis:
    """The store of a controller with these settings."""
    settings = settings.model_copy(update={"data_dir": folder_of_its_own()})
    store = create_app(settings, model_store_config=config).state.runtime.store
    assert isinstance(store, Redis)
    return store


def test_the_url_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`METIS_MODEL_STORE_URL_FILE`, and neither repr nor dump show it."""
    secret = tmp_path / "url"
    secret.write_text(f"redis://:{CANARY}@example.org/0\n")
    monkeypatch.setenv("METIS_MODEL_STORE_URL_FILE", str(secret))
    settings = settings_from_environment()
    assert settings.model_store_url is not None
    assert settings.model_store_url.get_secret_value() == f"redis://:{CANARY}@example.org/0"
    assert CANARY not in repr(settings) + settings.model_dump_json()


def test_address_and_prefix_from_settings_or_configuration(own_redis: Launch) -> None:
    """What a program gives goes before the settings, key by key: its address with the password of the settings."""
    server = own_redis("--requirepass", CANARY)
    settings = Settings(model_store="Redis", model_store_url=f"redis://:{CANARY}@127.0.0.1:{server.port}/0")
    assert repr(store_of(settings)) == f"Redis(127.0.0.1:{server.port}, prefix='metis:')"
    elsewhere = Settings(
        model_store_url=f"redis://:{CANARY}@elsewhere.invalid:1/0",
        model_store_prefix="settings:",
    )
    given = ModelStoreConfig("Redis", 1, "127.0.0.1", server.port)
    assert repr(store_of(elsewhere, given)) == f"Redis(127.0.0.1:{server.port}, prefix='settings:')"
    named = ModelStoreConfig("Redis", 1, "127.0.0.1", server.port, model_store_prefix="mine:")
    assert repr(store_of(elsewhere, named)) == f"Redis(127.0.0.1:{server.port}, prefix='mine:')"


def test_a_controller_does_not_start_without_its_redis(start: Callable[..., Process]) -> None:
    """Exit status 2 and one line, with the address and without the password."""
    require_redis()
    port = free_port()
    url = f"redis://:{CANARY}@127.0.0.1:{port}/0"
    process = start(
        "refused", "-m", "controller_api", "--port", "0", "--model-store", "Redis", METIS_MODEL_STORE_URL=url
    )
    assert process.wait(30) == 2
    assert process.tail().startswith(f"metis-controller: Redis at 127.0.0.1:{port} does not answer")
    assert CANARY not in process.tail()
    assert "Traceback" not in process.tail()


def test_a_store_that_goes_away_is_told_and_comes_back(
    own_redis: Launch, start: Callable[..., Process], tmp_path: Path
) -> None:
    """503 `store-unavailable` with `Retry-After`, no password in answer or log; after the restart the call succeeds."""
    server = own_redis("--requirepass", CANARY)
    secret = tmp_path / "url"
    secret.write_text(f"redis://:{CANARY}@127.0.0.1:{server.port}/0\n")
    served = serve(
        start, tmp_path, "--model-store", "Redis", METIS_MODEL_STORE_URL_FILE=str(secret), METIS_LOG_LEVEL="debug"
    )
    with httpx.Client(base_url=served.url, timeout=20) as http:
        shown = http.get("/v1/federation").json()
        assert (shown["model_store"], shown["durable"]) == ("Redis", True)
        server.kill()
        body = model(*weights())
        put = f"/v1/models/{digest_of(body)}"
        refused = http.put(put, content=body, headers={"Content-Type": MSGPACK})
        assert refused.status_code == 503
        assert refused.json()["type"] == "/errors/store-unavailable"
        assert int(refused.headers["retry-after"]) > 0
        server.start()
        assert http.put(put, content=body, headers={"Content-Type": MSGPACK}).status_code == 201
        assert http.get(put).content == body
    assert CANARY not in refused.text + served.process.log.read_text()


def test_a_second_folder_is_refused_and_given_back(redis_server: RedisServer, tmp_path: Path) -> None:
    """The models of another controller are not touched; the folder is free for another attempt."""

    def controller(name: str, prefix: str) -> FastAPI:
        return create_app(
            Settings(
                data_dir=tmp_path / name,
                model_store="Redis",
                model_store_url=redis_server.url,
                model_store_prefix=f"{tmp_path.name}{prefix}:",
            )
        )

    controller("one", "a")
    with pytest.raises(InvalidConfig, match="belong to the controller of another data folder"):
        controller("two", "a")
    controller("two", "b")
