"""What an agent keeps between restarts."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from learner_agent.agent import state_file as module
from learner_agent.agent.state_file import Enrolment, Identity, StateFile

IDENTITY = Identity("a1", "token-of-anna", "secret-of-anna")
HERE = "http://127.0.0.1:8080"


def file_of(folder: Path) -> Path:
    """The one state file there is."""
    (found,) = folder.glob("learner-*.json")
    return found


def test_an_identity_is_read_back_by_the_next_process(tmp_path: Path) -> None:
    """The same name at the same controller."""
    first = StateFile(tmp_path, "anna", HERE)
    first.save(IDENTITY)
    first.close()
    assert StateFile(tmp_path, "anna", HERE).load() == IDENTITY


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    """Saving None, and a shorter identity after a longer one."""
    state = StateFile(tmp_path, "anna", HERE)
    state.save(IDENTITY)
    state.save(Identity("b", "t"))
    assert state.load() == Identity("b", "t")
    state.save(None)
    assert state.load() is None


def test_the_key_of_an_enrolment_is_kept_until_there_is_an_identity(tmp_path: Path) -> None:
    """Each in place of the other; a key is one that nobody guesses, and another each time."""
    state, begun = StateFile(tmp_path, "anna", HERE), Enrolment()
    state.save(begun)
    state.close()
    again = StateFile(tmp_path, "anna", HERE)
    assert again.load() == begun
    assert len(begun.idempotency_key) == 32
    assert Enrolment() != begun
    again.save(IDENTITY)
    assert again.load() == IDENTITY
    assert begun.idempotency_key not in file_of(tmp_path).read_text()
    again.save(None)
    assert again.load() is None
    assert file_of(tmp_path).read_bytes() == b""


def test_a_file_of_version_0_1_is_read_and_what_is_written_can_be_read_there(tmp_path: Path) -> None:
    """It has these three keys."""
    as_in_0_1 = '{"learner_id": "a1", "token": "token-of-anna", "webhook_secret": null}'
    state = StateFile(tmp_path, "anna", HERE)
    file_of(tmp_path).write_text(as_in_0_1)
    assert state.load() == Identity("a1", "token-of-anna")
    state.save(Identity("a1", "token-of-anna"))
    assert json.loads(file_of(tmp_path).read_text()) == json.loads(as_in_0_1)


# ---- a save that is cut short
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_save_for_which_there_is_no_room_leaves_what_was_there(tmp_path: Path) -> None:
    """The disk takes ten bytes and then no more."""
    import resource

    state = StateFile(tmp_path, "anna", HERE)
    state.save(IDENTITY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            state.save(Identity("b", "t"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state.load() == IDENTITY
    state.save(Identity("b", "t"))
    assert state.load() == Identity("b", "t")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_process_killed_while_it_saves_leaves_the_one_or_the_other(tmp_path: Path) -> None:
    """At any moment: what was saved before, or what was to be saved, never something in between or nothing."""
    kept: list[Identity | Enrolment] = [IDENTITY, Enrolment("k" * 32)]
    StateFile(tmp_path, "anna", HERE).save(IDENTITY)
    draw = random.Random(11)
    for _ in range(40):
        child = os.fork()
        if child == 0:
            try:
                state = StateFile(tmp_path, "anna", HERE)
                for turn in range(1_000_000):
                    state.save(kept[turn % 2])
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0.005, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert StateFile(tmp_path, "anna", HERE).load() in kept


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    """Mode 0600 in a folder 0700, whatever the umask."""
    before = os.umask(0)
    try:
        state = StateFile(tmp_path / "state", "anna", HERE)
        modes = [stat.S_IMODE(file_of(tmp_path / "state").stat().st_mode)]
        for kept in (Enrolment(), IDENTITY, None):
            state.save(kept)
            modes.append(stat.S_IMODE(file_of(tmp_path / "state").stat().st_mode))
    finally:
        os.umask(before)
    assert modes == [0o600] * 4
    assert list((tmp_path / "state").iterdir()) == [file_of(tmp_path / "state")]
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_names_and_controllers_have_files_of_their_own(tmp_path: Path) -> None:
    """Also names that differ only in what a file's name cannot hold."""
    for name, where in (("anna", HERE), ("anna", HERE + "/other"), ("an na", HERE), ("an*na", HERE)):
        state = StateFile(tmp_path, name, where)
        assert state.load() is None
        state.save(IDENTITY)
    assert len(list(tmp_path.glob("learner-*.json"))) == 4


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Dots and slashes become underscores."""
    StateFile(tmp_path / "state", "../../anna", HERE).save(IDENTITY)
    assert file_of(tmp_path / "state").name.startswith("learner-______anna-")
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_two_processes_never_share_an_identity(tmp_path: Path) -> None:
    """The second of one name neither reads nor changes the file, until the first has ended."""
    first, second = StateFile(tmp_path, "anna", HERE), StateFile(tmp_path, "anna", HERE)
    first.save(IDENTITY)
    assert (first.owned, second.owned) == (True, False)
    assert second.load() is None
    second.save(Identity("b2", "token-of-another"))
    assert first.load() == IDENTITY
    first.close()
    assert StateFile(tmp_path, "anna", HERE).load() == IDENTITY


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_file_that_is_replaced_while_another_process_opens_it_stays_the_firsts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has opened what was there before: it looks again, and finds the new one taken."""
    first, lock = StateFile(tmp_path, "anna", HERE), module._lock
    opened: list[os.stat_result] = []

    def late(file: IO[str]) -> bool:
        monkeypatch.setattr(module, "_lock", lock)
        opened.append(os.fstat(file.fileno()))
        first.save(IDENTITY)
        return lock(file)

    monkeypatch.setattr(module, "_lock", late)
    second = StateFile(tmp_path, "anna", HERE)
    assert not os.path.samestat(opened[0], file_of(tmp_path).stat())
    assert (first.owned, second.owned) == (True, False)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"learner_id": "a1"}', '{"version": 2}', "\x00\xff", '{"idempotency_key": "k", "a": 1}']
)
def test_a_damaged_file_is_no_identity(tmp_path: Path, content: str) -> None:
    """The learner enrols anew."""
    StateFile(tmp_path, "anna", HERE).close()
    file_of(tmp_path).write_bytes(content.encode("latin-1"))
    assert StateFile(tmp_path, "anna", HERE).load() is None


def test_a_secret_is_not_shown() -> None:
    """Neither in a log nor in an error."""
    assert repr(IDENTITY) == "Identity(learner_id='a1')"
    assert repr(Enrolment()) == "Enrolment()"


def test_a_sign_of_life_is_left_for_health_checks(tmp_path: Path) -> None:
    """The time of `alive`, renewed no more often than needed."""
    state = StateFile(tmp_path, "anna", HERE)
    assert not (tmp_path / "alive").exists()
    state.touch()
    os.utime(tmp_path / "alive", (0, 0))
    state.touch()
    assert (tmp_path / "alive").stat().st_mtime == 0


# ---- in a folder where others may write
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links")
@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_a_state_file_that_is_a_link_is_refused(tmp_path: Path, plant: str) -> None:
    """No token is written to what it leads to, and none is read from there."""
    StateFile(tmp_path, "anna", HERE).close()
    planted, dear = file_of(tmp_path), tmp_path / "dear"
    planted.unlink()
    dear.write_text('{"learner_id": "mallory", "token": "t"}')
    getattr(planted, plant)(dear)
    with pytest.raises(PermissionError, match=f"{planted} .*: put"):
        StateFile(tmp_path, "anna", HERE)
    assert dear.read_text() == '{"learner_id": "mallory", "token": "t"}'


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links")
def test_a_sign_of_life_touches_no_other_file(tmp_path: Path) -> None:
    """`alive` is a link to one, or to a name that is free: it goes on without."""
    (tmp_path / "dear").write_text("what stood there")
    os.utime(tmp_path / "dear", (0, 0))
    for target in ("dear", "nowhere"):
        (tmp_path / "alive").symlink_to(tmp_path / target)
        state = StateFile(tmp_path, "anna", HERE)
        state.touch()
        state.close()
        (tmp_path / "alive").unlink()
    assert (tmp_path / "dear").read_text() == "what stood there"
    assert (tmp_path / "dear").stat().st_mtime == 0
    assert not (tmp_path / "nowhere").exists()
