"""`Redis`: models in a Redis server, so that they, and each learner's lineage, outlive the controller and its machine.

Every key begins with a prefix, `metis:` unless set otherwise, which belongs to one controller: controllers that share
a server take different ones. Keys of others are never touched. Of a key below, `…` stands for the prefix:

    …model:KEY        hash   a document in parts: `id` (drawn for each put), `size`, and the bytes as `0`, `1`, …
    …owner            string the folder of the controller that the keys belong to
    …unfinished:ID    hash   a large document that is being written; renamed when it is whole, expires when it is not
    …lineage:LEARNER  list   keys of the learner's updates, oldest first

Needs the package `redis`: the extra `metisfl-rest[redis]`.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ..errors import InvalidConfig, StoreUnavailable, UnknownModel
from ..weights import Buffer, allocate, pieces
from .base import KEY, Draft, buffered
from .redis_server import Server

PREFIX = "metis:"
PART_BYTES = 16 << 20  # a value of Redis has at most 512 MB, and while a large one moves nobody else is served
UNFINISHED_S = 600  # an unfinished document is forgotten so long after its last part
GLOB = re.compile(r"[][*?\\^-]")  # what has a meaning in a pattern of Redis
REREADS = 5  # attempts to read a document that is being replaced


class Redis:
    """Blobs and lineages in a Redis server. A call is repeated when its connection broke: each may be."""

    name: ClassVar[str] = "Redis"
    durable: ClassVar[bool] = True
    blocking: ClassVar[bool] = True

    def __init__(
        self,
        url: str | None = None,
        *,
        hostname: str | None = None,
        port: int | None = None,
        prefix: str = PREFIX,
        lineage_length: int = 1,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """Where the server is and what that may raise: see Server. A document of more than `part_bytes` is split."""
        self._server = Server(url, hostname, port)
        self._client = self._server.client
        self._prefix, self._lineage_length, self.part_bytes = prefix, lineage_length, part_bytes
        self._shared: weakref.WeakValueDictionary[str, np.ndarray[Any, Any]]
        self._shared = weakref.WeakValueDictionary()  # documents in memory now
        self._readings: dict[str, Future[memoryview]] = {}  # under way
        self._lock = threading.Lock()  # of these

    def __repr__(self) -> str:
        """Where it is, without its password."""
        return f"Redis({self._server.where}, prefix={self._prefix!r})"

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.put."""
        target, size = self._model(key), sum(memoryview(part).nbytes for part in parts)
        self._server.ask(lambda: self._write(target, size, parts))
        self._shared.pop(key, None)

    def publish(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ModelStore.publish."""
        self.put(key, parts)
        if len(parts) == 1 and memoryview(parts[0]).nbytes:
            self._share(key, parts[0])

    def draft(self, size: int) -> AbstractContextManager[Draft]:
        """See ModelStore.draft."""
        return buffered(size, self.publish)

    def file(self, key: str) -> BinaryIO | None:
        """See ModelStore.file: there is none."""
        return None

    def get(self, key: str) -> memoryview:
        """See ModelStore.get. Who asks for what is being read waits for that reading, and gets what comes of it."""
        target = self._model(key)
        with self._lock:
            held, reading = self._shared.get(key), self._readings.get(key)
            if held is not None:
                return held.data.toreadonly()
            if reading is None:
                mine = self._readings[key] = Future[memoryview]()
        if reading is not None:
            return reading.result()
        try:
            found = self._server.ask(lambda: self._read(target))
            if found is None:
                raise UnknownModel(f"there is no model {key} in Redis at {self._server.where}", model=key)
            view = self._share(key, found) if found else memoryview(b"")
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(view)
            return view
        finally:
            with self._lock:
                del self._readings[key]

    def drop(self, key: str) -> None:
        """See ModelStore.drop."""
        self._drop([key])

    def keys(self) -> list[str]:
        """See ModelStore.keys."""
        place = f"{self._prefix}model:"
        pattern = GLOB.sub(r"\\\g<0>", place) + "*"

        def scan() -> set[bytes]:
            return set(self._client.scan_iter(pattern, count=1000))  # it may tell a key twice

        keys = (one.decode(errors="replace").removeprefix(place) for one in self._server.ask(scan))
        return [key for key in keys if KEY.fullmatch(key)]  # another's prefix may begin with this place

    def make_room(self) -> None:
        """See ModelStore.make_room: nothing is held for that."""

    def remember(self, learner: str, key: str) -> None:
        """See ModelStore.remember. What an earlier call left undone, because the server went away, is done now."""
        lineage, length = self._lineage(learner), self._lineage_length

        def note() -> list[bytes]:
            with self._client.pipeline() as pipe:
                pipe.lrem(lineage, 0, key).rpush(lineage, key)  # once, also when the call is repeated
                if length:
                    pipe.lrange(lineage, 0, -length - 1)
                told = pipe.execute()
            return told[2] if length else []

        if too_old := [one.decode() for one in self._server.ask(note)]:
            self._drop(too_old, lineage)

    def lineage(self, learner: str) -> list[str]:
        """See ModelStore.lineage."""
        return [one.decode() for one in self._server.ask(lambda: self._client.lrange(self._lineage(learner), 0, -1))]

    def erase(self, learner: str) -> None:
        """See ModelStore.erase."""
        self._drop(self.lineage(learner), self._lineage(learner))

    def claim(self, owner: str) -> None:
        """See ModelStore.claim."""
        place = f"{self._prefix}owner"

        def take() -> bytes:
            self._client.set(place, owner, nx=True)
            return bytes(self._client.get(place) or b"")

        if (found := self._server.ask(take)) != owner.encode():
            raise InvalidConfig(
                f"the keys {self._prefix}… in Redis at {self._server.where} belong to the controller of another data"
                " folder: give this one another METIS_MODEL_STORE_PREFIX; or, when that folder is gone for good, remove"
                f" them first: redis-cli --scan --pattern '{self._prefix}*' | xargs redis-cli unlink",
                expected=owner,
                got=found.decode(errors="replace"),
            )

    def close(self) -> None:
        """See ModelStore.close."""
        self._server.close()

    # ---- documents
    def _write(self, target: str, size: int, parts: Sequence[Buffer]) -> None:
        """Put a document in one step; a large one part by part beside its place, then there in one step."""
        head = {"id": os.urandom(12).hex(), "size": size}
        if size <= self.part_bytes:
            (piece,) = pieces(parts, self.part_bytes) if size else (memoryview(b""),)
            with self._client.pipeline() as pipe:
                pipe.unlink(target).hset(target, mapping={**head, "0": piece})
                pipe.execute()
            return
        unfinished, count = f"{self._prefix}unfinished:{head['id']}", 0
        for piece in pieces(parts, self.part_bytes):
            with self._client.pipeline() as pipe:
                pipe.hset(unfinished, mapping={**head, str(count): piece}).expire(unfinished, UNFINISHED_S)
                pipe.execute()
            count += 1
        with self._client.pipeline() as pipe:
            pipe.watch(unfinished)
            if pipe.hlen(unfinished) != len(head) + count:
                raise StoreUnavailable(
                    f"Redis at {self._server.where} has lost a part of a document; the call may be repeated"
                )
            pipe.multi()
            pipe.persist(unfinished).rename(unfinished, target)
            pipe.execute()

    def _read(self, target: str) -> Buffer | None:
        """A whole document, as it was put by one call; None when there is none."""
        for _ in range(REREADS):
            ident, told, piece = self._client.hmget(target, "id", "size", "0")
            if ident is None:
                return None
            size = int(told)
            if len(piece) == size:
                return bytes(piece)
            document, end, count = allocate(size), 0, 0
            again = ident
            while again == ident:
                document[end : end + len(piece)] = piece
                end, count = end + len(piece), count + 1
                if end == size:
                    return document
                again, piece = self._client.hmget(target, "id", str(count))
        raise StoreUnavailable(
            f"a document in Redis at {self._server.where} is replaced too often; the call may be repeated"
        )

    def _drop(self, keys: Sequence[str], lineage: str | None = None) -> None:
        """Forget models, and their places in a lineage, at once."""

        def forget() -> None:
            with self._client.pipeline() as pipe:
                pipe.unlink(*(self._model(key) for key in keys))
                for key in keys if lineage else ():
                    pipe.lrem(lineage, 0, key)
                pipe.execute()

        if keys:
            self._server.ask(forget)
        for key in keys:
            self._shared.pop(key, None)

    def _share(self, key: str, document: Buffer) -> memoryview:
        """A view of a document, which readers of the same key are given too for as long as anybody has one."""
        held: np.ndarray[Any, Any] = np.frombuffer(document, np.uint8)  # every view of it keeps it alive
        self._shared[key] = held
        return held.data.toreadonly()

    def _model(self, key: str) -> str:
        if not KEY.fullmatch(key):
            raise UnknownModel(f"{key!r} cannot be a model's key", model=key)
        return f"{self._prefix}model:{key}"

    def _lineage(self, learner: str) -> str:
        return f"{self._prefix}lineage:{learner}"
