"""State folders as archives, with the times of their files, and the keys of a Redis server as JSON."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import io
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

SUMS = "SHA256SUMS"  # beside the files of a version


def files(version: Path) -> list[Path]:
    """All files of a version but the one with their checksums."""
    found = (path for path in version.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path for path in found if path.name != SUMS)


def pack(folders: list[Path], archive: Path) -> None:
    """Folders of one parent, by their names alone; the time of a lock file says when its controller was alive last."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in folders:
            for path in sorted([folder, *folder.rglob("*")]):
                tar.add(path, str(path.relative_to(folder.parent)), recursive=False, filter=_of_nobody)
    archive.write_bytes(gzip.compress(made.getvalue(), 9, mtime=0))


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def unpack(archive: Path, into: Path) -> Path:
    """The folder `data` of an archive, in a new folder."""
    into.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    return into / "data"


def dump(url: str) -> dict[str, Any]:
    """All keys of a Redis server by name: type and value, bytes in base64."""
    client = _redis().from_url(url)
    found: dict[str, Any] = {}
    for key in sorted(client.scan_iter()):
        kind = client.type(key).decode()
        if kind == "hash":
            value: Any = {name.decode(): _text(one) for name, one in sorted(client.hgetall(key).items())}
        elif kind == "list":
            value = [_text(one) for one in client.lrange(key, 0, -1)]
        else:
            value = _text(client.get(key))
        found[key.decode()] = {"type": kind, "value": value}
    client.close()
    return found


def load(url: str, keys: dict[str, Any]) -> None:
    """Put them into another server."""
    client = _redis().from_url(url)
    for key, one in keys.items():
        kind, value = one["type"], one["value"]
        if kind == "hash":
            client.hset(key, mapping={name: base64.b64decode(text) for name, text in value.items()})
        elif kind == "list":
            client.rpush(key, *map(base64.b64decode, value))
        else:
            client.set(key, base64.b64decode(value))
    client.close()


def module(path: Path) -> ModuleType:
    """A Python file, as it lies there."""
    spec = importlib.util.spec_from_file_location(f"witness_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # a dataclass looks its module up
    spec.loader.exec_module(found)
    return found


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _redis() -> Any:
    import redis

    return redis.Redis
