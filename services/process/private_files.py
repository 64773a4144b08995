"""Files that are this user's alone, opened by names that others know.

Who may write to a folder can put under such a name what he likes: a link, which would lead to another file of this
user, a second name of one, a pipe, for which whoever opens it waits, a file of his own. Nothing of that is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

ROOT = 0  # may do everything in any case
A_LINK = "is a link, which is not followed: put the file itself there"
ANOTHERS = "belongs to another user: if what is in it can be trusted, `chown` it to the one who runs this"
_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
_WRITES = os.O_WRONLY | os.O_RDWR


class NotPrivate(PermissionError):
    """Something else has the name of a file that was to be opened; the text says what, and what to do."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EPERM, f"{path} {why}")

    def __str__(self) -> str:
        return str(self.strerror)


def open_private(path: Path, flags: int) -> int:
    """A descriptor of a file of this user. One that is made by it, or written to, can be read by nobody else from then
    on. To empty a file, truncate it once it is open: with O_TRUNC it is lost before it is looked at.

    Raises NotPrivate, and OSError as os.open does.
    """
    try:
        file = os.open(path, flags | _NOT_FOLLOWED, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise NotPrivate(path, A_LINK) from error
        raise
    try:
        found = os.fstat(file)
        _judge(path, found, bool(flags & _WRITES))
        if flags & _WRITES and found.st_mode & 0o077 and hasattr(os, "fchmod"):
            os.fchmod(file, 0o600)
    except BaseException:
        os.close(file)
        raise
    return file


def check_private(path: Path) -> None:
    """Raise NotPrivate for what has the name of a file that a library opens itself; none is well too."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    _judge(path, found, True)


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user may enter, of one that is there too. A link to one is followed if it is this
    user's as well. Raises NotPrivate."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    link, folder = path.lstat(), path.stat()
    if not (_is_ours(link, ROOT) and _is_ours(folder, ROOT)):
        raise NotPrivate(path, ANOTHERS)
    if stat.S_ISDIR(link.st_mode) and folder.st_mode & 0o077 and _is_ours(folder):
        with suppress(OSError):  # of a file system that knows no modes; the files have their own
            path.chmod(0o700)


def _judge(path: Path, found: os.stat_result, writes: bool) -> None:
    """Rights of the group are left alone: where volumes are shared out by groups, they are given to every file."""
    if stat.S_ISLNK(found.st_mode):
        raise NotPrivate(path, A_LINK)
    if not stat.S_ISREG(found.st_mode):
        raise NotPrivate(path, "is no file: remove it")
    if not _is_ours(found):
        raise NotPrivate(path, ANOTHERS)
    if writes and found.st_nlink > 1:
        raise NotPrivate(path, "has another name too, under which it would be changed: put a copy there")
    if found.st_mode & stat.S_IWOTH and hasattr(os, "fchmod"):
        raise NotPrivate(path, "may be written by everyone: if what is in it can be trusted, `chmod` it to 600")


def _is_ours(found: os.stat_result, *others: int) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid in (os.geteuid(), *others)
