"""Files of this user alone: what somebody else put under their names is neither followed, waited for nor changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.process import NotPrivate, check_private, make_private_folder, open_private

NOBODY = 65534  # another user
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED: files of another user. Making one needs root; run the tests once as root."
)


def link(path: Path, target: Path) -> None:
    """A link to the target."""
    path.symlink_to(target)


def second_name(path: Path, target: Path) -> None:
    """The target under another name."""
    path.hardlink_to(target)


def pipe(path: Path, target: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def folder(path: Path, target: Path) -> None:
    """A folder."""
    path.mkdir()


def everyones(path: Path, target: Path) -> None:
    """A file that everyone may write."""
    path.touch()
    path.chmod(0o666)


def anothers(path: Path, target: Path) -> None:
    """A file of another user."""
    path.touch()
    os.chown(path, NOBODY, NOBODY)


PLANTED = [link, second_name, pipe, everyones, pytest.param(anothers, marks=needs_root)]


@pytest.mark.parametrize("plant", PLANTED)
def test_what_is_planted_is_not_opened(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    """To be written: the error names the file and what to do, its target is as it was; at once, for a pipe too."""
    target, path = tmp_path / "target", tmp_path / "lock"
    target.write_text("dear")
    target.chmod(0o640)
    plant(path, target)
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT):
        with pytest.raises(NotPrivate, match=f"{path} (is|has|belongs|may) .*: (put|remove|if)") as caught:
            open_private(path, flags)
        assert "Errno" not in str(caught.value)
        assert caught.value.strerror == str(caught.value)
    with pytest.raises(NotPrivate, match=str(path)):
        check_private(path)
    assert target.read_text() == "dear"
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("plant", [link, pipe, everyones, pytest.param(anothers, marks=needs_root)])
def test_nor_is_it_read(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    """A second name of this user's own file may be read: a backup by hard links."""
    plant(tmp_path / "model", tmp_path / "target")
    with pytest.raises(NotPrivate):
        open_private(tmp_path / "model", os.O_RDONLY)
    (tmp_path / "kept").touch()
    second_name(tmp_path / "backup", tmp_path / "kept")
    os.close(open_private(tmp_path / "backup", os.O_RDONLY))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """As the system says, or as the check does."""
    folder(tmp_path / "lock", tmp_path)
    with pytest.raises(OSError, match="directory"):
        open_private(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(NotPrivate, match="is no file"):
        check_private(tmp_path / "lock")


def test_nothing_is_made_at_the_end_of_a_link(tmp_path: Path) -> None:
    """Where it leads to a name that is free."""
    link(tmp_path / "lock", tmp_path / "nowhere")
    with pytest.raises(NotPrivate, match="is a link"):
        open_private(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_its_users_alone(tmp_path: Path) -> None:
    """A new one, whatever the umask is; and one of an earlier version, once it is written to."""
    before = os.umask(0)
    try:
        os.close(open_private(tmp_path / "new", os.O_RDWR | os.O_CREAT))
        (tmp_path / "old").touch(mode=0o664)
        os.close(open_private(tmp_path / "old", os.O_RDWR))
        make_private_folder(tmp_path / "folder")
        (tmp_path / "there").mkdir(mode=0o755)
        make_private_folder(tmp_path / "there")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"new": 0o600, "old": 0o600, "folder": 0o700, "there": 0o700}


def test_what_is_not_there_is_well() -> None:
    """Nothing to check; nothing to open."""
    check_private(Path("/nowhere/lock"))
    with pytest.raises(FileNotFoundError):
        open_private(Path("/nowhere/lock"), os.O_RDWR)


@needs_root
def test_a_link_to_a_folder_is_followed_if_it_is_ours(tmp_path: Path) -> None:
    """Models on a larger disk; but not where another user sends them, nor into his folder."""
    large = tmp_path / "large"
    large.mkdir(mode=0o755)
    link(tmp_path / "models", large)
    make_private_folder(tmp_path / "models")
    assert large.stat().st_mode & 0o777 == 0o755
    os.chown(tmp_path / "models", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(NotPrivate, match="belongs to another user"):
        make_private_folder(tmp_path / "models")
    os.chown(large, NOBODY, NOBODY)
    with pytest.raises(NotPrivate, match="belongs to another user"):
        make_private_folder(large)
