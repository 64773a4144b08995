"""Files that were dropped and are written over by the next document, while nobody looks at them.

The pages of such a file are in memory and have their place on the disk: to write over them costs a tenth of what new
ones cost.
"""

from __future__ import annotations

import os
import stat
import threading
import weakref
from collections import defaultdict, deque
from contextlib import suppress
from pathlib import Path
from typing import Any

SPARE = ".spare"
MOST = 8  # that are kept
WORTH = 1 << 20  # bytes: a smaller file is soon written


class Spares:
    """Of one folder. `lock` is held while a document is looked up and its view noted, and while one is dropped."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self._folder = folder
        self._paths: deque[Path] = deque()
        self._views: defaultdict[Path, list[weakref.ref[Any]]] = defaultdict(list)
        for left in folder.glob(f"*{SPARE}"):
            left.unlink(missing_ok=True)

    def note(self, path: Path, view: Any) -> None:
        """Somebody looks at a document for as long as this object lives."""
        self._views[path] = [one for one in self._views[path] if one() is not None]
        self._views[path].append(weakref.ref(view))

    def drop(self, path: Path, for_good: bool = False) -> None:
        """A document is not wanted any more, `for_good`: nor may its bytes stay. Nothing happens when there is none.

        Raises OSError.
        """
        with self.lock:
            seen = any(one() is not None for one in self._views.get(path, ()))
            if for_good or seen or len(self._paths) >= MOST or not _is_worth_it(path):
                path.unlink(missing_ok=True)
            else:
                spare = self._folder / f"{os.urandom(12).hex()}{SPARE}"
                path.replace(spare)
                self._paths.append(spare)
            self._views.pop(path, None)  # not before: a drop that failed is made again

    def take(self, path: Path) -> bool:
        """Give a spare file this name, to be written over; whether there was one."""
        try:
            self._paths.pop().replace(path)
        except (IndexError, FileNotFoundError):
            return False
        return True

    def clear(self) -> None:
        """Give their room back."""
        while self._paths:
            with suppress(IndexError, OSError):
                self._paths.pop().unlink(missing_ok=True)


def _is_worth_it(path: Path) -> bool:
    """A large file, which has no other name: what is written over it is seen under that too."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size >= WORTH
