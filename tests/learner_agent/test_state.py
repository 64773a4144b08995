"""What an agent keeps between restarts."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from learner_agent.state import Saved, StateFile

IDENTITY = Saved("a1", "token-of-anna", "secret-of-anna")
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
    state.save(Saved("b", "t"))
    assert state.load() == Saved("b", "t")
    state.save(None)
    assert state.load() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    """Mode 0600 in a folder 0700, whatever the umask."""
    before = os.umask(0)
    try:
        StateFile(tmp_path / "state", "anna", HERE).save(IDENTITY)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file_of(tmp_path / "state").stat().st_mode) == 0o600
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
    second.save(Saved("b2", "token-of-another"))
    assert first.load() == IDENTITY
    first.close()
    assert StateFile(tmp_path, "anna", HERE).load() == IDENTITY


@pytest.mark.parametrize("content", ["", "{", "[]", '{"learner_id": "a1"}', '{"version": 2}', "\x00\xff"])
def test_a_damaged_file_is_no_identity(tmp_path: Path, content: str) -> None:
    """The learner enrols anew."""
    StateFile(tmp_path, "anna", HERE).close()
    file_of(tmp_path).write_bytes(content.encode("latin-1"))
    assert StateFile(tmp_path, "anna", HERE).load() is None


def test_a_secret_is_not_shown() -> None:
    """Neither in a log nor in an error."""
    assert repr(IDENTITY) == "Saved(learner_id='a1')"


def test_a_sign_of_life_is_left_for_health_checks(tmp_path: Path) -> None:
    """The time of `alive`, renewed no more often than needed."""
    state = StateFile(tmp_path, "anna", HERE)
    assert not (tmp_path / "alive").exists()
    state.touch()
    os.utime(tmp_path / "alive", (0, 0))
    state.touch()
    assert (tmp_path / "alive").stat().st_mtime == 0
