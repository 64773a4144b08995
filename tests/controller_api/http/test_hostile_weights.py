"""Every way to send weights that are no weights, or not the round's: a problem that names the fault, and no trace."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

from services import ModelStoreConfig
from services.state import NAME
from tests.conftest import InProcess, in_process
from tests.controller_api.driving import (
    MSGPACK,
    TWO_ROUNDS,
    Member,
    begin,
    digest_of,
    document,
    join,
    model,
    problem,
    seen,
    settings,
    tensor,
    weights,
)

W, B = weights(1.0)  # (2, 3) and (3,) float32
GOOD = document(W, B)


def one(**changes: Any) -> bytes:
    """An update whose first tensor has other members; None leaves one out."""
    changed = {key: value for key, value in {**tensor(W), **changes}.items() if value is not None}
    return document(changed, tensor(B, "1"))


def pairs(*given: tuple[str, bytes]) -> bytes:
    """A map, whose values are packed already; a key may come twice."""
    return bytes([0x80 | len(given)]) + b"".join(msgpack.packb(key) + value for key, value in given)


def metadata(**given: Any) -> bytes:
    """An update with this metadata."""
    return document(W, B, metadata=given)


def with_value(value: float) -> np.ndarray:
    """A tensor that is all right but for one value."""
    spoilt = W.copy()
    spoilt[1, 2] = value
    return spoilt


TENSORS = ("tensors", msgpack.packb([tensor(W), tensor(B, "1")]))
EXAMPLES = ("num_training_examples", msgpack.packb(10))
METADATA = ("metadata", pairs(EXAMPLES))
FIELDS = [(key, msgpack.packb(value)) for key, value in tensor(W).items()]
MALFORMED = {
    "nothing": b"",
    "a byte that MessagePack never uses": b"\xc1",
    "JSON": b'{"tensors": []}',
    "half of it": GOOD[: len(GOOD) // 2],
    "all but its last byte": GOOD[:-1],
    "one byte more": GOOD + b"\x00",
    "twice": GOOD * 2,
    "a list": msgpack.packb([]),
    "a map without tensors": msgpack.packb({"metadata": {}}),
    "tensors as a map": msgpack.packb({"tensors": {}}),
    "tensors of numbers": msgpack.packb({"tensors": [1, 2]}),
    "an unknown key": msgpack.packb({"code": "rm", "tensors": []}),
    "an unknown key of a tensor": one(code="rm"),
    "integers for keys": msgpack.packb({1: []}),
    "a tensor without a name": one(name=None),
    "a tensor without data": one(data=None),
    "data as text": one(data="x" * 24),
    "data as an extension": one(data=msgpack.ExtType(1, b"x" * 24)),
    "two tensors of one name": document(tensor(W), tensor(B)),
    "a name that is not UTF-8": GOOD.replace(b"\xa4name\xa10", b"\xa4name\xa1\xff"),
    "a name of 513 characters": one(name="n" * 513),
    "a name that is a number": one(name=0),
    "dtype object": one(dtype="object"),
    "dtype of text": one(dtype="<U6"),
    "a big-endian dtype": one(dtype=">f4"),
    "a dtype that is none": one(dtype="float31"),
    "a dtype of 10,000 characters": one(dtype="f" * 10_000),
    "a negative shape": one(shape=[-2, -3]),
    "a shape of fractions": one(shape=[2.5, 3]),
    "a shape as text": one(shape="2,3"),
    "a shape that overflows": one(shape=[2**62, 4]),
    "a shape that overflows to nothing": one(shape=[2**64 - 1, 2**64 - 1, 0], data=b""),
    "a shape of 33 dimensions": one(shape=[1] * 32 + [6]),
    "less data than its shape": one(data=W.tobytes()[:-1]),
    "more data than its shape": one(data=W.tobytes() + b"\x00"),
    "a bool that is 2": document(tensor(W), {**tensor(B, "1"), "dtype": "bool", "data": b"\x00\x01\x02"}),
    "a metric that is NaN": document(W, B, metrics={"loss": math.nan}),
    "a metric that is text": document(W, B, metrics={"loss": "low"}),
    "metadata with a list": metadata(num_training_examples=1, more=[1]),
    "metadata that is NaN": metadata(num_training_examples=1, more=math.nan),
    "metadata that is binary": metadata(num_training_examples=1, more=b"x"),
    "metadata of 10,001 characters": metadata(num_training_examples=1, more="x" * 10_001),
    "padding as text": one(pad="x"),
    "padding of 5,000 bytes": one(pad=bytes(5000)),
    "lists 100,000 deep": b"\x91" * 100_000,
    "maps 100,000 deep": b"\x81\xa1a" * 100_000,
    "a list that claims four billion members": b"\x81\xa7tensors\xdd" + struct.pack(">I", 2**32 - 1),
    "a map that claims four billion members": b"\xdf" + struct.pack(">I", 2**32 - 1),
    "data that claims four gigabytes": one(data=b"").replace(b"\xa4data\xc4\x00", b"\xa4data\xc6\xff\xff\xff\xff"),
    "a million empty maps": b"\x81\xa7tensors\xdd" + struct.pack(">I", 10**6) + b"\x80" * 10**6,
    "tensors twice": pairs(TENSORS, TENSORS, METADATA),
    "metadata twice": pairs(TENSORS, METADATA, METADATA),
    "a number of examples twice": pairs(TENSORS, ("metadata", pairs(EXAMPLES, EXAMPLES))),
    "a metric twice": pairs(TENSORS, METADATA, ("metrics", pairs(EXAMPLES, EXAMPLES))),
    "a group of extra tensors twice": pairs(TENSORS, METADATA, ("extra", pairs(("c", b"\x90"), ("c", b"\x90")))),
    "a tensor's data twice": pairs(
        ("tensors", b"\x92" + pairs(*FIELDS, FIELDS[3]) + msgpack.packb(tensor(B, "1"))), METADATA
    ),
    "extra tensors that nobody asked for": document(W, B, extra={"c": [tensor(W)]}),
    "a timestamp": b"\xd6\xff\x00\x00\x00\x00",
}
MISMATCHED = {
    "a shape that was turned": (document(W.T, B), "[2, 3]", "[3, 2]"),
    "a shape that was flattened": (document(W.reshape(6), B), "[2, 3]", "[6]"),
    "another dtype": (document(W.astype("<f8"), B), "float32", "float64"),
    "another dtype of that size": (document(W, B.view("<i4")), "float32", "int32"),
    "other names": (document(tensor(W, "hidden"), tensor(B, "1")), "0", "hidden"),
    "another order": (document(tensor(B, "1"), tensor(W, "0")), "0", "1"),
    "a tensor too few": (document(W), "2", "1"),
    "a tensor too many": (document(W, B, B), "2", "3"),
    "no tensors": (document(), "2", "0"),
}
NON_FINITE = {
    "NaN": document(with_value(math.nan), B),
    "infinity": document(with_value(math.inf), B),
    "minus infinity": document(W, np.array([0, 0, -math.inf], "<f4")),
}
INVALID_WEIGHT = {
    "none": metadata(),
    "null": metadata(num_training_examples=None),
    "negative": metadata(num_training_examples=-1),
    "a boolean": metadata(num_training_examples=True),
    "text": metadata(num_training_examples="10"),
    "NaN": metadata(num_training_examples=math.nan),
    "infinite": metadata(num_training_examples=math.inf),
    "above 2^53": metadata(num_training_examples=2**53 + 1),
    "above any reason": metadata(num_training_examples=1.7e308),
    "under another name": metadata(num_completed_batches=10),
}


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[InProcess]:
    """A controller that keeps its models in files."""
    made = settings(data_dir=tmp_path, model_store="OnDisk", max_model_bytes=4_000_000)
    async with in_process(made, store=ModelStoreConfig(model_store="OnDisk")) as running:
        yield running


def files(folder: Path) -> dict[str, str]:
    """Every file of a folder and its content's digest, but what is counted of refusals."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(NAME)
    }


async def test_a_refused_update_leaves_no_trace(on_disk: InProcess, tmp_path: Path) -> None:
    """Each is 422 by its name and says which tensor or key; federation, runs, results and files are as before. Of all
    of them one round is counted in which its learner's update was refused, until a good one is taken."""
    anna, _ = await begin(on_disk.http, "anna", "ben")
    task = await anna.task()
    before, held = await seen(on_disk.http), files(tmp_path)
    assert held
    for name, body in MALFORMED.items():
        answer = await anna.put(task, body)
        assert answer.status_code == 422, (name, answer.text)
        problem(answer, 422, "malformed-update")
    for name, (body, expected, got) in MISMATCHED.items():
        told = problem(await anna.put(task, body), 422, "shape-mismatch")
        assert (str(told["expected"]), str(told["got"])) == (expected, got), name
    for name, body in NON_FINITE.items():
        told = problem(await anna.put(task, body), 422, "non-finite-update")
        assert told["tensor"] in ("0", "1"), name
    for name, body in INVALID_WEIGHT.items():
        answer = await anna.put(task, body)
        assert answer.status_code == 422, (name, answer.text)
        assert problem(answer, 422, "invalid-weight")["key"] == "num_training_examples"
    assert await seen(on_disk.http) == before
    assert files(tmp_path) == held
    assert (await anna.call("GET", anna.path)).json()["health"] == "failing"
    assert (await anna.put(task, GOOD)).status_code == 201
    assert (await anna.call("GET", anna.path)).json()["health"] == "ok"


async def test_an_initial_model_is_looked_at_too(controller: InProcess) -> None:
    """What is no document, or holds NaN, becomes nobody's model 0; the learner may send another one."""
    http = controller.http
    anna = await asked(http)
    task = await anna.task()
    for body in (*MALFORMED.values(), model()):
        problem(await anna.put(task, body), 422, "malformed-update")
    for body in NON_FINITE.values():
        if b"extra" not in body:
            problem(await anna.put(task, body), 422, "non-finite-update")
    assert (await http.get("/v1/runs/current")).json()["model"] is None
    assert (await anna.put(task, model(W, B))).status_code == 201


async def asked(http: httpx.AsyncClient) -> Member:
    """A learner that is asked for its initial weights."""
    anna = await join(http, "anna")
    await http.post("/v1/runs", json=TWO_ROUNDS)
    return anna


async def test_a_put_model_is_looked_at_too(controller: InProcess) -> None:
    """The right digest does not make a document of it."""
    for name, body in {**MALFORMED, "NaN": NON_FINITE["NaN"]}.items():
        path = f"/v1/models/{digest_of(body)}"
        answer = await controller.http.put(path, content=body, headers={"Content-Type": MSGPACK})
        assert answer.status_code == 422, name
        problem(answer, 422, "non-finite-update" if name == "NaN" else "malformed-update")
        problem(await controller.http.get(path), 404, "unknown-model")


async def test_weights_larger_than_the_limit_are_refused(on_disk: InProcess, tmp_path: Path) -> None:
    """413 that tells the limit, by the declared length and by what really comes, which is counted against the model of
    the task (its few bytes, and 1 MiB beside them); no file is left."""
    anna, _ = await begin(on_disk.http, "anna", "ben")
    task = await anna.task()
    before, held = await seen(on_disk.http), files(tmp_path)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1_000_000)

    path, media = f"/v1/tasks/{task['id']}/result", {"Content-Type": MSGPACK}
    for content, least, most in ((bytes(4_000_001), 4_000_000, 4_000_000), (chunks(), 2**20 + 33, 2**20 + 1000)):
        told = problem(await anna.call("PUT", path, content=content, headers=media), 413, "too-large")
        assert least <= told["limit"] <= most
    assert await seen(on_disk.http) == before
    assert files(tmp_path) == held


async def test_a_model_of_any_dtype_survives_a_round(controller: InProcess) -> None:
    """The other side: every dtype of the contract, 0-d and empty tensors are no reason to refuse."""
    square = ("<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2")
    arrays: list[Any] = [np.ones((2, 2), dtype) for dtype in square]
    arrays += [np.ones(2, "<u4"), np.ones(2, "<u8"), np.array([True, False])]
    arrays += [np.array(7, "<i8"), np.zeros((0, 3), "<f4")]
    ready = [tensor(array, str(i)) for i, array in enumerate(arrays)]
    ready.append({"name": "bf16", "dtype": "bfloat16", "shape": [2], "data": b"\x80\x3f\x00\x40"})  # 1.0 and 2.0
    anna = await asked(controller.http)
    assert (await anna.put(await anna.task(), document(*ready))).status_code == 201
    assert (await anna.put(await anna.task(), document(*ready))).status_code == 201
    new = msgpack.unpackb((await anna.call("GET", f"/v1/models/{(await anna.task())['model']['digest']}")).content)
    assert [{k: one[k] for k in ("name", "dtype", "shape", "data")} for one in new["tensors"]] == ready
