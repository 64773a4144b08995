"""`admit` reads nothing beyond the first thing that is not the round's model: a refusal costs what the model has."""

from __future__ import annotations

import re
import struct
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest

from services.errors import InvalidUpdate, MalformedUpdate
from services.weights import Expected, admit, layout_of, messagepack, name_tensors, wire

MODEL = name_tensors([np.ones((20, 5), np.float32) for _ in range(20)])
OWN = b"".join(wire.encode(MODEL, {}, {"n": 1}))
EXPECTED = Expected(layout_of(OWN))
ROOM = 200_000  # bytes: the tensors of the model, as objects


def tiny(count: int, dimensions: int = 0) -> bytes:
    """A list of so many tensors of one number each."""
    data = bytes(4)
    return bytes(
        msgpack.packb(
            [{"name": str(i), "dtype": "float32", "shape": [1] * dimensions, "data": data} for i in range(count)]
        )
    )


def beside(key: str, value: bytes, first: bool = False) -> bytes:
    """The model's own tensors by another encoder, and a key that holds what is packed already."""
    tensors = [{"name": t.name, "dtype": "float32", "shape": list(t.shape), "data": t.array.tobytes()} for t in MODEL]
    model, other = msgpack.packb("tensors") + msgpack.packb(tensors), msgpack.packb(key) + value
    return b"\x82" + (other + model if first else model + other)


GROUPS = b"\xde" + struct.pack(">H", 8) + b"".join(msgpack.packb(f"g{i}") + tiny(100_000) for i in range(8))
TEXTS = msgpack.packb({f"k{i}": "x" * 9000 for i in range(1000)})
BOMBS: dict[str, tuple[bytes, int]] = {  # with the byte, at most, at which it must be refused
    "groups of tensors, cut": (beside("extra", GROUPS[:-1]), len(beside("extra", b"")) + 20),
    "groups of tensors before the model": (beside("extra", GROUPS, first=True), 20),
    "groups behind a model as we write it": (b"\x83" + OWN[1:] + msgpack.packb("extra") + GROUPS, len(OWN) + 20),
    "100,000 tensors": (b"\x81" + msgpack.packb("tensors") + tiny(100_000), 100),
    "10,000 tensors of 32 dimensions": (b"\x81" + msgpack.packb("tensors") + tiny(10_000, 32), 200),
    "metadata of 9 MB": (beside("metadata", TEXTS), len(beside("metadata", b"")) + wire.MAX_TOLD_BYTES + 10_000),
    "metrics of 200,000 names": (
        beside("metrics", msgpack.packb({str(i): 1.0 for i in range(200_000)})),
        len(beside("metrics", b"")) + 20,
    ),
}


class Counted:
    """How far a reader came: the greatest place that one was set to."""

    furthest = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    """Every reader tells it where it is when it refuses, and at each tensor."""
    Counted.furthest = 0
    keys = messagepack.Reader.text

    def text(reader: Any, *rest: Any) -> str:
        Counted.furthest = max(Counted.furthest, reader.at)
        return keys(reader, *rest)

    monkeypatch.setattr(messagepack.Reader, "text", text)
    return Counted


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_refusal_reads_and_takes_what_the_model_has(bomb: str, counted: type[Counted]) -> None:
    """Not what was sent: neither bytes nor memory."""
    body, furthest = BOMBS[bomb]
    tracemalloc.start()
    with pytest.raises(InvalidUpdate):
        admit(memoryview(body), EXPECTED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counted.furthest <= furthest < len(body) / 2
    assert peak < ROOM


def test_a_first_model_has_limits_in_place_of_a_model() -> None:
    """More tensors than the limit are refused by their number alone; as many are taken."""
    for count in (wire.MAX_TENSORS + 1, 100_000):
        with pytest.raises(MalformedUpdate, match=rf"{count} tensors, the limit is {wire.MAX_TENSORS}"):
            admit(memoryview(b"\x81" + msgpack.packb("tensors") + tiny(count)), Expected())
    body = b"\x81" + msgpack.packb("tensors") + tiny(wire.MAX_TENSORS)
    assert len(admit(memoryview(body), Expected()).tensors) == wire.MAX_TENSORS


def test_what_is_wrong_is_said_with_its_place() -> None:
    """The byte at which something else was expected."""
    with pytest.raises(MalformedUpdate) as refused:
        admit(memoryview(OWN[:-1] + b"\xc1"), EXPECTED)
    assert re.search(r"\(at byte \d+\)$", refused.value.detail)
