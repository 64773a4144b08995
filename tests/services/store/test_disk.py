"""`OnDisk`: what a crash, a full disk and a read-only one leave behind."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import ModelStoreConfig
from services.errors import DiskFull, FederationError, StoreUnavailable, UnknownModel
from services.store import OnDisk, open_store

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("NOT TESTED: a full disk. Mounting a small tmpfs needs root; run the tests once as root.")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def files(folder: Path) -> list[str]:
    """Names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_models_outlive_the_process(tmp_path: Path) -> None:
    """A store opened on the same folder holds what was put before."""
    OnDisk(tmp_path).put("a", [b"kept"])
    assert bytes(OnDisk(tmp_path).get("a")) == b"kept"


@pytest.mark.parametrize("fsync", [True, False])
def test_a_model_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    """With `fsync` the bytes are written out, then the file is renamed, then its folder is; else nobody waits."""
    seen: list[str] = []
    sync, rename = os.fsync, Path.replace

    def noted_sync(file: Any) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}"))
        seen.append(f"sync {name.suffix or name.name}")
        sync(file)

    def noted_rename(path: Path, target: Path) -> Path:
        seen.append(f"rename {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    store = open_store(ModelStoreConfig("OnDisk", fsync=fsync), tmp_path)
    store.put("a", [b"x"])
    with store.draft(10) as draft:
        draft.keep("b")
    whole = [f"sync {tmp_path.name}"]
    for key in ("a", "b"):
        whole += ["sync .part", f"rename {key}", "sync models"]
    assert seen == (whole if fsync else ["rename a", "rename b"])


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, StoreUnavailable), (errno.ENOSPC, DiskFull)])
def test_a_disk_that_fails_while_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[FederationError]
) -> None:
    """What was not written out is not held, and nothing is left of it; the next call writes it anew."""
    store = OnDisk(tmp_path, fsync=True)
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", lambda file: _fail(number))
        with pytest.raises(kind):
            store.put("a", [b"x"])
        with pytest.raises(kind), store.draft(10) as draft:
            draft.keep("a")
    assert files(tmp_path) == store.keys() == []
    store.put("a", [b"x"])
    assert store.keys() == ["a"]


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


def test_what_was_half_written_is_removed(tmp_path: Path) -> None:
    """The rest of a killed process's write takes no room and is never taken for a model."""
    OnDisk(tmp_path).put("a", [b"whole"])
    (tmp_path / "b.0123456789ab.part").write_bytes(b"hal")
    store = OnDisk(tmp_path)
    assert files(tmp_path) == ["a"]
    with pytest.raises(UnknownModel):
        store.get("b")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The old model stays under its key and no temporary file is left when the parts cannot be written."""
    store = OnDisk(tmp_path)
    store.put("a", [b"before"])
    with pytest.raises(TypeError):
        store.put("a", [b"after", "no buffer"])  # type: ignore[list-item]
    assert bytes(store.get("a")) == b"before"
    assert files(tmp_path) == ["a"]


def test_a_full_disk_is_told_and_recovers_by_itself(small_disk: Path) -> None:
    """DiskFull, nothing half-written, reads go on, and the call succeeds once there is room."""
    store = OnDisk(small_disk / "models")
    store.put("first", [bytes(MIB // 2)])
    with pytest.raises(DiskFull, match="no space left") as caught:
        store.put("second", [bytes(MIB // 4)] * 3)
    assert caught.value.retryable
    assert files(small_disk / "models") == ["first"]
    assert len(store.get("first")) == MIB // 2
    store.drop("first")
    store.put("second", [bytes(MIB // 4)] * 3)
    assert len(store.get("second")) == MIB * 3 // 4


def test_a_draft_takes_its_room_at_once(small_disk: Path) -> None:
    """A disk that is too small for a draft says so before a byte is written, and nothing is left of it."""
    store = OnDisk(small_disk / "models")
    with pytest.raises(DiskFull, match="no space left"), store.draft(2 * MIB):
        raise AssertionError("there is no room")
    assert files(small_disk / "models") == []
    with store.draft(MIB // 2) as draft:
        draft.buffer[:] = bytes([1]) * (MIB // 2)
        with pytest.raises(DiskFull):
            store.put("other", [bytes(MIB * 3 // 4)])
        draft.keep("a")
    assert files(small_disk / "models") == ["a"]


def test_a_read_only_disk_is_told_and_still_read(small_disk: Path) -> None:
    """StoreUnavailable for a write; what is there can be read."""
    store = OnDisk(small_disk / "models")
    store.put("a", [b"there"])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnavailable, match="cannot write"):
        store.put("b", [b"x"])
    with pytest.raises(StoreUnavailable):
        store.drop("a")
    assert bytes(store.get("a")) == b"there"


def test_what_could_not_be_dropped_is_dropped_by_the_next_call(small_disk: Path) -> None:
    """A lineage forgets an update when its file is gone, not before: the same call again finishes the work."""
    store = OnDisk(small_disk / "models", lineage_length=1)
    for key in ("a", "b"):
        store.put(key, [b"x"])
    store.remember("anna", "a")
    for call in (lambda: store.remember("anna", "b"), lambda: store.erase("anna")):
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(StoreUnavailable):
            call()
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        call()
        assert store.lineage("anna") == files(small_disk / "models")
    assert files(small_disk / "models") == []


def test_a_drop_that_failed_and_is_made_again_tears_no_view(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads a model that could not be removed at first: its bytes are not written over."""
    monkeypatch.setattr("services.store.spares.WORTH", 1)
    monkeypatch.setattr("services.store.disk.WORTH", 1)
    store = OnDisk(small_disk / "models")
    store.put("a", [b"a" * (400 << 10)])
    view = store.get("a")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnavailable):
        store.drop("a")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    store.drop("a")
    store.put("b", [b"b" * (400 << 10)])
    assert bytes(view[:3]) == b"aaa"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Whatever the system says of it, the store is unavailable; a folder stands for a disk that fails here."""
    store = OnDisk(tmp_path)
    (tmp_path / "a").mkdir()
    for call in (store.file, store.get):
        with pytest.raises(StoreUnavailable, match="cannot read a in"):
            call("a")


def test_a_folder_that_vanished_is_told(tmp_path: Path) -> None:
    """A store whose folder is gone is unavailable, not a crash."""
    store = OnDisk(tmp_path / "models")
    (tmp_path / "models").rmdir()
    with pytest.raises(StoreUnavailable, match="cannot write"):
        store.put("a", [b"x"])


# ---- in a folder where others may write
def test_models_are_their_users_alone(tmp_path: Path) -> None:
    """Files and folder, whatever the umask is; a folder that an earlier version left open is closed."""
    (tmp_path / "models").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        for folder in (tmp_path / "models", tmp_path / "new"):
            store = OnDisk(folder)
            store.put("a", [b"put"])
            with store.draft(2 * MIB) as draft:
                draft.keep("b")
            store.drop("b")
            store.put("c", [bytes(2 * MIB)])  # over the spare file
            assert [folder.stat().st_mode & 0o777, *(one.stat().st_mode & 0o777 for one in folder.iterdir())] == [
                *(0o700, 0o600, 0o600)
            ]
    finally:
        os.umask(before)


def test_a_model_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    """What another program may read in it is no model's bytes; the error says so."""
    (tmp_path / "dear").write_bytes(b"what stood there")
    store = OnDisk(tmp_path / "models")
    (tmp_path / "models" / "a").symlink_to(tmp_path / "dear")
    for read in (store.get, store.file):
        with pytest.raises(StoreUnavailable, match="is a link, which is not followed"):
            read("a")


@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_what_a_dropped_name_leads_to_is_not_written_over(tmp_path: Path, plant: str) -> None:
    """Files that are dropped are written over by the next document; a link to one that is dear goes, and no more."""
    dear = tmp_path / "dear"
    dear.write_bytes(bytes(2 * MIB))
    store = OnDisk(tmp_path / "models")
    getattr(tmp_path / "models" / "a", plant)(dear)
    store.drop("a")
    store.put("b", [b"\1" * (2 * MIB)])
    assert files(tmp_path / "models") == ["b"]
    assert dear.read_bytes() == bytes(2 * MIB)
