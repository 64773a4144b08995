"""Laws of every model store: what is put comes back, lineages keep the newest, keys never leave their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from services import ModelStoreConfig
from services.errors import InvalidConfig, UnknownModel
from services.store import STORES, ModelStore, Redis, open_store
from tests.redis_server import store_config

DIGEST = "sha256-" + "0" * 64
Opener = Callable[..., ModelStore]


@pytest.fixture(params=[*STORES, "Redis in parts"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """`opened(lineage_length=…)` opens the store of the registry that is on turn; closed after the test.

    Redis a second time with documents that are split.
    """
    stores: list[ModelStore] = []
    name, _, split = request.param.partition(" ")

    def open_one(lineage_length: int = 0) -> ModelStore:
        store = open_store(store_config(request, name, tmp_path, lineage_length), tmp_path)
        if split:
            assert isinstance(store, Redis)
            store.part_bytes = 3000
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        store.close()


def held(store: ModelStore, *keys: str) -> list[str]:
    """Those of `keys` that the store holds."""
    found = []
    for key in keys:
        try:
            store.get(key)
        except UnknownModel:
            continue
        found.append(key)
    return found


def test_what_is_put_comes_back(opened: Opener) -> None:
    """The parts come back as one read-only view, one after the other; any kind of buffer, also none at all."""
    store = opened()
    store.put(DIGEST, [b"ab", bytearray(b"cd"), memoryview(b"ef")])
    store.put("single", [bytearray(b"xyz")])
    store.put("empty", [])
    store.put("nothing", [b""])
    assert bytes(store.get(DIGEST)) == b"abcdef"
    assert bytes(store.get("single")) == b"xyz"
    assert (bytes(store.get("empty")), bytes(store.get("nothing"))) == (b"", b"")
    assert all(store.get(key).readonly for key in (DIGEST, "single", "empty"))


def test_a_key_that_is_not_held_is_unknown(opened: Opener) -> None:
    """Getting it names the key; dropping it does nothing."""
    store = opened()
    with pytest.raises(UnknownModel, match="absent") as caught:
        store.get("absent")
    assert caught.value.values == {"model": "absent"}
    store.drop("absent")


def test_putting_again_replaces(opened: Opener) -> None:
    """A key holds what was put last, once."""
    store = opened()
    store.put("a", [b"long before"])
    store.put("a", [b"now"])
    assert bytes(store.get("a")) == b"now"
    store.drop("a")
    assert held(store, "a") == []


def test_a_view_outlives_its_key(opened: Opener) -> None:
    """An aggregation that reads a model is not torn by a drop, nor by a put of the same key."""
    store = opened()
    store.put("a", [b"first" * 1000])
    view = store.get("a")
    store.put("a", [b"second"])
    store.drop("a")
    assert bytes(view) == b"first" * 1000


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_a_document_can_be_written_in_place(opened: Opener, size: int) -> None:
    """A draft's buffer is of the size that was asked for, and what is in it when it is kept is held under the key."""
    store = opened()
    store.put("a", [b"before"])
    with store.draft(size) as draft:
        assert len(draft.buffer) == size
        draft.buffer[:] = bytes([7]) * size
        assert bytes(store.get("a")) == b"before"
        draft.keep("a")
    view = store.get("a")
    assert bytes(view) == bytes([7]) * size
    assert view.readonly
    if file := store.file("a"):
        with file:
            assert file.read() == view
    store.drop("a")
    assert held(store, "a") == []
    assert bytes(view) == bytes([7]) * size


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_draft_may_be_finished_before_its_key_is_known(opened: Opener, tmp_path: Path, size: int) -> None:
    """Then it is kept as ever; finished and not kept, nothing is left of it."""
    store = opened()
    with store.draft(size) as draft:
        draft.buffer[:] = bytes([7]) * size
        draft.finish()
        draft.keep("a")
    assert bytes(store.get("a")) == bytes([7]) * size
    before = list(tmp_path.rglob("*"))
    with store.draft(size) as draft:
        draft.finish()
    assert list(tmp_path.rglob("*")) == before


def test_a_draft_that_is_not_kept_is_gone(opened: Opener, tmp_path: Path) -> None:
    """Nothing is left of it, also when the writer fails."""
    store = opened()
    before = list(tmp_path.rglob("*"))
    with store.draft(1 << 20) as draft:
        draft.buffer[:1] = b"x"
    with pytest.raises(ZeroDivisionError), store.draft(1 << 20):
        _ = 1 / 0
    assert list(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("length", "kept"),
    [(0, ["k1", "k2", "k3", "k4"]), (1, ["k4"]), (2, ["k3", "k4"]), (3, ["k2", "k3", "k4"])],
)
def test_a_lineage_keeps_the_newest(opened: Opener, length: int, kept: list[str]) -> None:
    """`lineage_length` k keeps k updates per learner, first in first out; 0 keeps all. Others are not touched."""
    store = opened(lineage_length=length)
    store.put("model", [b"community"])
    store.put("other", [b"of b"])
    store.remember("b", "other")
    for i in range(1, 5):
        store.put(f"k{i}", [bytes([i])])
        store.remember("a", f"k{i}")
        assert store.lineage("a")[-1] == f"k{i}"
        assert len(store.lineage("a")) == (min(i, length) if length else i)
    assert store.lineage("a") == held(store, "k1", "k2", "k3", "k4") == kept
    assert (store.lineage("b"), held(store, "model", "other")) == (["other"], ["model", "other"])


def test_updates_fall_out_in_the_order_in_which_they_came(opened: Opener) -> None:
    """The oldest goes first, whatever the keys are called."""
    store = opened(lineage_length=2)
    gone: list[list[str]] = []
    for key in ("z", "a", "m", "b"):
        store.put(key, [b"x"])
        store.remember("learner", key)
        gone.append(sorted({"z", "a", "m", "b"} - set(held(store, "z", "a", "m", "b"))))
    assert gone == [["a", "b", "m"], ["b", "m"], ["b", "z"], ["a", "z"]]


def test_an_update_that_is_remembered_again_counts_once(opened: Opener) -> None:
    """A call that failed half-way is made again: nothing falls out for it."""
    store = opened(lineage_length=2)
    for key in ("a", "b", "b"):
        store.put(key, [b"x"])
        store.remember("learner", key)
    assert store.lineage("learner") == held(store, "a", "b") == ["a", "b"]


def test_a_learner_that_left_is_erased(opened: Opener) -> None:
    """All its updates are dropped and its lineage is empty; nobody else's is. Erasing again does nothing."""
    store = opened()
    for learner, key in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        store.put(key, [b"x"])
        store.remember(learner, key)
    store.erase("a")
    store.erase("a")
    store.erase("never-seen")
    assert (store.lineage("a"), store.lineage("b")) == ([], ["b1"])
    assert held(store, "a1", "a2", "b1") == ["b1"]


def test_a_learner_that_comes_back_begins_anew(opened: Opener) -> None:
    """After an erasure the lineage counts from nothing."""
    store = opened(lineage_length=1)
    for key in ("old", "new"):
        store.put(key, [b"x"])
        store.remember("a", key)
        if key == "old":
            store.erase("a")
    assert (store.lineage("a"), held(store, "old", "new")) == (["new"], ["new"])


@pytest.mark.parametrize(
    "key", ["../secret", "..", ".", "", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\n", "é", "x" * 200, "a.part"]
)
def test_no_key_leads_out_of_the_store(opened: Opener, tmp_path: Path, key: str) -> None:
    """A key that is no id reads and drops nothing outside, and is unknown."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"keep")
    store = opened()
    with pytest.raises(UnknownModel):
        store.get(key)
    with suppress(UnknownModel):
        store.drop(key)
    assert secret.read_bytes() == b"keep"


def test_every_store_says_what_it_is(opened: Opener) -> None:
    """Its name is the one that a user configures; whether it lasts and whether it blocks are told."""
    store = opened()
    assert store.name in STORES
    assert isinstance(store.durable, bool)
    assert isinstance(store.blocking, bool)


def test_an_unknown_store_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """`OnDisc` is answered with OnDisk."""
    with pytest.raises(InvalidConfig, match=r"no 'OnDisc'; did you mean OnDisk\?"):
        open_store(ModelStoreConfig("OnDisc"), tmp_path)


def test_all_keys_are_told(opened: Opener, tmp_path: Path) -> None:
    """Those that are held, once each, however they came there; not a draft, nor what was dropped."""
    store = opened(lineage_length=1)
    assert store.keys() == []
    for key in (DIGEST, "a", "a", "old", "new", "gone"):
        store.put(key, [key.encode() * 2000])
    store.publish("published", [bytes(1 << 20)])
    for key in ("old", "new"):
        store.remember("learner", key)
    store.drop("gone")
    with store.draft(1000) as draft:
        assert sorted(store.keys()) == ["a", "new", "published", DIGEST]
        draft.keep("drafted")
    assert sorted(store.keys()) == ["a", "drafted", "new", "published", DIGEST]
    assert held(store, *store.keys()) == store.keys()
