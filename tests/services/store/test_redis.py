"""`Redis` against a real server: what a killed, a full, a locked and a shared one leave behind."""

from __future__ import annotations

import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from services import ModelStoreConfig
from services.errors import InvalidConfig, StoreUnavailable, UnknownModel
from services.store import Redis, open_store
from services.store import redis as store_module
from services.store import redis_server as server_module
from services.weights import Buffer, pieces
from tests.redis_server import RedisServer

MIB = 1 << 20
Launch = Callable[..., RedisServer]


@pytest.fixture
def store(redis_server: RedisServer, tmp_path: Path) -> Iterator[Redis]:
    """A store on the tests' server whose documents are split at 1000 bytes; all updates are kept."""
    opened = Redis(redis_server.url, prefix=f"{tmp_path.name}:", lineage_length=0, part_bytes=1000)
    yield opened
    opened.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    """A plain client of that server."""
    import redis

    with redis.Redis(port=redis_server.port) as made:
        yield made


def keys(client: Any, prefix: str) -> list[str]:
    """The keys below a prefix, without it."""
    return sorted(key.decode().removeprefix(prefix) for key in client.scan_iter(f"{prefix}*"))


# ---- what lasts
def test_models_and_lineages_outlive_the_controller(redis_server: RedisServer, tmp_path: Path) -> None:
    """A store opened anew holds both, and drops by the old lineage what is too old by its own length."""
    first = Redis(redis_server.url, prefix=f"{tmp_path.name}:", lineage_length=0)
    for number in range(4):
        first.put(f"k{number}", [bytes([number])])
        first.remember("anna", f"k{number}")
    first.close()
    second = Redis(redis_server.url, prefix=f"{tmp_path.name}:", lineage_length=2)
    assert second.lineage("anna") == ["k0", "k1", "k2", "k3"]
    assert bytes(second.get("k2")) == b"\2"
    second.put("k4", [b"new"])
    second.remember("anna", "k4")
    assert second.lineage("anna") == ["k3", "k4"]
    for old in ("k0", "k1", "k2"):
        with pytest.raises(UnknownModel, match=old):
            second.get(old)
    second.close()


@pytest.mark.parametrize("own", ["a", "a*", "[ab]?", "a\\"])
def test_keys_are_those_of_the_own_prefix(redis_server: RedisServer, tmp_path: Path, own: str) -> None:
    """A prefix is no pattern, and a controller whose prefix begins with this one's has models of its own."""
    names = (own, "b", "aa", "abc", f"{own}model:", f"{own}model:x")
    stores = {name: Redis(redis_server.url, prefix=f"{tmp_path.name}:{name}") for name in names}
    for name, store in stores.items():
        store.put(f"of-{names.index(name)}", [b"x"])
        store.remember("learner", f"of-{names.index(name)}")
    assert stores[own].keys() == ["of-0"]
    for store in stores.values():
        store.close()


def test_a_call_that_is_repeated_counts_once(store: Redis) -> None:
    """An answer that got lost makes the controller call again: the lineage holds the update once, as the newest."""
    for key in ("k0", "k1", "k0", "k0"):
        store.put(key, [b"x"])
        store.remember("anna", key)
    assert store.lineage("anna") == ["k1", "k0"]
    store.erase("anna")
    store.erase("anna")
    assert store.lineage("anna") == []


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(own_redis: Launch) -> None:
    """SIGKILL in the midst of puts: what was answered is there after a restart, in the store that was open before."""
    server = own_redis()
    store = Redis(server.url, lineage_length=0, part_bytes=1000)
    acknowledged: list[str] = []
    refused: list[StoreUnavailable] = []

    def work() -> None:
        while not refused:
            key = f"k{len(acknowledged)}"
            try:
                store.put(key, [key.encode() * 500])
                store.remember("anna", key)
            except StoreUnavailable as error:
                refused.append(error)
            else:
                acknowledged.append(key)

    worker = threading.Thread(target=work)
    worker.start()
    while len(acknowledged) < 20 and worker.is_alive():
        time.sleep(0.005)
    server.kill()
    worker.join(30)
    (error,) = refused
    assert error.retryable
    assert f"Redis at 127.0.0.1:{server.port} does not answer" in error.detail
    server.start()
    assert store.lineage("anna")[: len(acknowledged)] == acknowledged
    assert all(bytes(store.get(key)) == key.encode() * 500 for key in acknowledged)
    store.put("after", [b"x" * 2500])
    assert bytes(store.get("after")) == b"x" * 2500
    store.close()


def test_a_server_that_is_back_at_once_is_not_noticed(own_redis: Launch) -> None:
    """Each call after a restart is answered, also by connections that were open before."""
    server = own_redis()
    store = Redis(server.url)
    for number in range(3):
        store.put("a", [bytes([number])])
        server.kill()
        server.start()
        assert bytes(store.get("a")) == bytes([number])
    store.close()


def test_a_call_waits_a_moment_for_a_server_that_is_being_restarted(
    own_redis: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is begun anew after a pause, and its caller does not notice."""
    server = own_redis()
    store = Redis(server.url, part_bytes=1000)
    server.kill()
    pauses: list[float] = []

    def restart(seconds: float) -> None:
        pauses.append(seconds)
        server.start()

    monkeypatch.setattr(server_module, "time", SimpleNamespace(sleep=restart))
    store.put("a", [b"x" * 2500])
    monkeypatch.undo()
    assert pauses == [server_module.PAUSES[0]]
    assert bytes(store.get("a")) == b"x" * 2500
    store.close()


def test_a_server_that_hangs_is_told(own_redis: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ends when the socket's time is over, and works again when the server goes on."""
    server = own_redis()
    monkeypatch.setitem(server_module.LIMITS, "socket_timeout", 0.3)
    store = Redis(server.url)
    store.put("a", [b"x"])
    server.child.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.get("a")
    assert time.monotonic() - started < 5
    server.child.send_signal(signal.SIGCONT)
    assert bytes(store.get("a")) == b"x"
    store.close()


# ---- documents in parts
def test_a_large_document_is_split(store: Redis, client: Any, tmp_path: Path) -> None:
    """Its parts are values of one key, none longer than the limit; nothing else is left of writing it."""
    document = np.random.default_rng(1).bytes(4321)
    store.put("a", [document[:10], document[10:1990], b"", document[1990:4000], document[4000:]])
    assert bytes(store.get("a")) == document
    assert keys(client, f"{tmp_path.name}:") == ["model:a"]
    held = client.hgetall(f"{tmp_path.name}:model:a")
    assert [len(held[str(number).encode()]) for number in range(5)] == [1000, 1000, 1000, 1000, 321]
    assert client.ttl(f"{tmp_path.name}:model:a") == -1
    store.put("a", [b"short"])
    assert bytes(store.get("a")) == b"short"
    assert set(client.hgetall(f"{tmp_path.name}:model:a")) == {b"id", b"size", b"0"}


def test_a_put_that_is_cut_leaves_what_was_there(own_redis: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server dies between two parts: the old document stays, the unfinished one goes by itself."""
    server = own_redis()
    store = Redis(server.url, part_bytes=1000)
    store.put("a", [b"before" * 1000])

    def cut(parts: Sequence[Buffer], most: int) -> Iterator[memoryview]:
        for number, piece in enumerate(pieces(parts, most)):
            if number == 3:
                server.kill()
            yield piece

    monkeypatch.setattr(store_module, "pieces", cut)
    with pytest.raises(StoreUnavailable):
        store.put("a", [b"after" * 1000])
    monkeypatch.undo()
    server.start()
    assert bytes(store.get("a")) == b"before" * 1000
    (left,) = store._client.keys("metis:unfinished:*")
    assert 0 < store._client.ttl(left) <= store_module.UNFINISHED_S
    store.put("a", [b"after" * 1000])
    assert bytes(store.get("a")) == b"after" * 1000
    store.close()


def test_a_document_that_lost_a_part_is_not_shown(
    store: Redis, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that forgot while it was written to (no append-only file, an eviction) does not make half a model."""
    store.put("a", [b"before" * 1000])

    def forgetful(parts: Sequence[Buffer], most: int) -> Iterator[memoryview]:
        for number, piece in enumerate(pieces(parts, most)):
            if number == 3:
                client.delete(*client.keys(f"{tmp_path.name}:unfinished:*"))
            yield piece

    monkeypatch.setattr(store_module, "pieces", forgetful)
    with pytest.raises(StoreUnavailable, match="lost a part"):
        store.put("a", [b"after" * 1000])
    assert bytes(store.get("a")) == b"before" * 1000


def test_a_document_that_is_replaced_while_it_is_read_is_read_anew(store: Redis, tmp_path: Path) -> None:
    """A reader gets one document or the other, never parts of both."""
    store.put("a", [b"1" * 3000])
    asked = store._client.hmget
    calls: list[str] = []

    def replacing(*arguments: Any) -> Any:
        calls.append("hmget")
        if len(calls) == 2:
            store.put("a", [b"2" * 3000])
        return asked(*arguments)

    store._client.hmget = replacing
    assert bytes(store.get("a")) == b"2" * 3000
    assert len(calls) == 5  # two of the first document, three of the second


@pytest.mark.parametrize("sizes", [[20 * MIB], [100, 10 * MIB, 3, 10 * MIB - 103]])
def test_no_second_copy_of_a_document_is_made(redis_server: RedisServer, tmp_path: Path, sizes: list[int]) -> None:
    """Neither written nor read: what is in memory beside it is a few parts."""
    store = Redis(redis_server.url, prefix=f"{tmp_path.name}:", part_bytes=MIB)
    parts = [np.full(size, 7, np.uint8).data for size in sizes]
    store.put("warm", [parts[0][:100]])
    tracemalloc.start()
    try:
        store.put("a", parts)
        view = store.get("a")
        assert tracemalloc.get_traced_memory()[1] < 5 * MIB
    finally:
        tracemalloc.stop()
    assert view == b"".join(parts)
    store.close()


def test_readers_of_a_model_share_it(store: Redis) -> None:
    """While one reader has it, the next is given the same memory; put or dropped, it is not given any more."""
    store.put("a", [b"1" * 3000])
    first, second = store.get("a"), store.get("a")
    assert np.shares_memory(np.frombuffer(first, np.uint8), np.frombuffer(second, np.uint8))
    store.put("a", [b"2" * 3000])
    assert (bytes(first), bytes(store.get("a"))) == (b"1" * 3000, b"2" * 3000)
    store.drop("a")
    with pytest.raises(UnknownModel):
        store.get("a")


# ---- whose keys they are
def test_two_controllers_do_not_see_each_other(redis_server: RedisServer, tmp_path: Path) -> None:
    """Their prefixes keep them apart: models, lineages, erasures."""
    ours, theirs = (
        open_store(
            ModelStoreConfig("Redis", 1, "localhost", redis_server.port, None, f"{tmp_path.name}-{who}:"), tmp_path
        )
        for who in ("ours", "theirs")
    )
    for one, value in ((ours, b"ours"), (theirs, b"theirs")):
        one.put("a", [value])
        one.remember("anna", "a")
    ours.erase("anna")
    assert (ours.lineage("anna"), theirs.lineage("anna")) == ([], ["a"])
    assert bytes(theirs.get("a")) == b"theirs"
    with pytest.raises(UnknownModel):
        ours.get("a")
    for one in (ours, theirs):
        one.close()


def test_keys_of_others_are_left_alone(own_redis: Launch) -> None:
    """A whole life of a store, erasure included: foreign keys stay, and no command looks at or clears all keys."""
    server = own_redis()
    store = Redis(server.url, lineage_length=1, part_bytes=10)
    store._client.set("other", "kept")
    store._client.rpush("model:a", "kept too")
    for key in ("a", "b"):
        store.put(key, [b"x" * 25])
        store.remember("anna", key)
    store.get("b")
    store.erase("anna")
    store.drop("a")
    store.close()
    again = Redis(server.url)
    commands = set(again._client.info("commandstats"))
    assert "cmdstat_hset" in commands
    assert not commands & {f"cmdstat_{name}" for name in ("flushdb", "flushall", "keys", "scan", "swapdb")}
    assert sorted(again._client.keys("*")) == [b"model:a", b"other"]
    again.close()


def test_a_full_server_is_told_and_recovers_by_itself(own_redis: Launch) -> None:
    """What does not fit is refused whole, reads go on, and the call succeeds once there is room."""
    server = own_redis("--maxmemory", "20mb", "--maxmemory-policy", "noeviction")
    store = Redis(server.url, part_bytes=MIB)
    store.put("a", [bytes(1000)])
    with pytest.raises(StoreUnavailable, match=r"is full .*maxmemory") as caught:
        store.put("b", [bytes(30 * MIB)])
    assert caught.value.retryable
    assert len(store.get("a")) == 1000
    with pytest.raises(UnknownModel):
        store.get("b")
    store._client.config_set("maxmemory", "100mb")
    store.put("b", [bytes(30 * MIB)])
    assert len(store.get("b")) == 30 * MIB
    store.close()


# ---- whose it is
def test_a_prefix_belongs_to_one_folder(redis_server: RedisServer, tmp_path: Path) -> None:
    """Who comes from another folder is told what to do, and changes nothing; another prefix is free."""

    def opened(prefix: str) -> Redis:
        return Redis(redis_server.url, prefix=f"{tmp_path.name}{prefix}:")

    first = opened("mine")
    first.claim("folder-a")
    first.put("k", [b"model"])
    again, second = opened("mine"), opened("mine")
    again.claim("folder-a")
    with pytest.raises(InvalidConfig) as caught:
        second.claim("folder-b")
    for word in (f"{tmp_path.name}mine:", "another data folder", "METIS_MODEL_STORE_PREFIX", "redis-cli"):
        assert word in caught.value.detail
    assert first.keys() == ["k"]
    first.claim("folder-a")
    opened("other").claim("folder-b")


def test_an_emptied_server_belongs_to_whoever_comes(own_redis: Launch, tmp_path: Path) -> None:
    """Nothing is left there that could be harmed."""
    server = own_redis()
    store = Redis(server.url)
    store.claim("folder-a")
    store._client.flushall()
    Redis(server.url).claim("folder-b")
