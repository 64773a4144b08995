"""Writing files so that a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: str | Path, content: bytes | bytearray | memoryview) -> Path:
    """Put `content` at `path` atomically, making its folder; returns the absolute path."""
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return target


def write_json(path: str | Path, value: Mapping[str, Any]) -> Path:
    """Put `value` at `path` as indented JSON, atomically."""
    return write(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def check_writable(path: str | Path) -> None:
    """Raise the OSError that `write` would, before a run is spent on it; leaves nothing behind."""
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(21, "is a folder; name a file", str(target))
    with tempfile.TemporaryFile(dir=target.parent):
        pass


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
