"""Weights documents that are not the model's: made to cost more than they weigh, or wrong in a way drawn at random."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgpack
import numpy as np

Tensor = Mapping[str, Any]
EXAMPLES = {"num_training_examples": 10}


def tensors_of(shapes: Mapping[str, tuple[int, ...]], value: float = 0.0) -> list[dict[str, Any]]:
    """Float32 tensors of these names and shapes, full of one value."""
    return [
        {"name": name, "dtype": "float32", "shape": list(shape), "data": np.full(shape, value, "<f4").tobytes()}
        for name, shape in shapes.items()
    ]


def update(tensors: list[Any], **more: Any) -> bytes:
    """A document of these tensors, with what stands beside them."""
    return bytes(msgpack.packb({"metrics": {}, "metadata": EXAMPLES, "tensors": tensors, **more}))


def tiny(count: int, dimensions: int = 0) -> list[dict[str, Any]]:
    """So many tensors of one number each."""
    return [{"name": str(i), "dtype": "float32", "shape": [1] * dimensions, "data": bytes(4)} for i in range(count)]


def groups(model: list[Any], count: int, each: int) -> bytes:
    """An update like the model, and beside it so many groups of tiny tensors; the last byte is missing."""
    group = msgpack.packb(tiny(each))
    named = b"".join(msgpack.packb(f"group-{i}") + group for i in range(count))
    like_the_model = b"\x84" + update(model)[1:] + msgpack.packb("extra")
    return (like_the_model + b"\xde" + struct.pack(">H", count) + named)[:-1]


class Generator:
    """Documents that are no update of a model, about `size` bytes each; the same for the same seed."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], size: int, seed: int) -> None:
        self._shapes = shapes
        self._model = tensors_of(shapes, 1.0)
        self._size = size
        self._draw = random.Random(f"{seed} {size}")

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """What is wrong with each, and its bytes; one of every kind."""
        for kind in KINDS:
            yield kind.__name__, kind(self)

    def _ballast(self) -> bytes:
        return self._draw.randbytes(self._size)

    def _changed(self, **keys: Any) -> bytes:
        """The model, one of its tensors other than it is, as large as the documents are to be."""
        changed = [dict(one) for one in self._model]
        self._draw.choice(changed).update(keys)
        return update(changed)

    def many_tensors(self) -> bytes:
        """As many of the smallest as there is room for."""
        return update(tiny(max(len(self._model) + 1, self._size // 45)))

    def many_dimensions(self) -> bytes:
        """Shapes as long as they may be, and longer."""
        dimensions = self._draw.choice([9, 32, 64, 255])
        return update(tiny(max(1, self._size // (45 + dimensions)), dimensions))

    def deep(self) -> bytes:
        """Lists in lists, or maps in maps, where a tensor, a shape, a metric or a name should be."""
        opened = self._draw.choice([b"\x91", b"\x81\xa1a"])
        within = opened * (self._size // len(opened)) + b"\xc0"
        key = self._draw.choice([b"\xa7tensors", b"\xa7metrics", b"\xa8metadata", b"\xa5extra", b"\xa5other"])
        return b"\x81" + key + within

    def claims(self) -> bytes:
        """Lengths of four gigabytes, and little behind them."""
        head = self._draw.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb"]) + b"\xff\xff\xff\xff"
        return b"\x81\xa7tensors" + head + self._ballast()

    def wrong_name(self) -> bytes:
        """One tensor has another name, a long one."""
        return self._changed(name="x" * self._size)

    def wrong_dtype(self) -> bytes:
        """One tensor has another type, or none that there is."""
        return self._changed(dtype=self._draw.choice(["float64", "int8", "object", "V8", "x" * self._size]))

    def wrong_shape(self) -> bytes:
        """One tensor has another shape, of as many numbers as its bytes are; or of negative or absurd ones."""
        count = self._size // 4
        shape = self._draw.choice([[count], [count, 1], [-1], [2**62, 4], [0], [1] * 40, ["1"], [1.5], None])
        return self._changed(shape=shape, data=bytes(4 * count))

    def wrong_length(self) -> bytes:
        """One tensor has more bytes than its shape."""
        return self._changed(data=bytes(self._size))

    def not_finite(self) -> bytes:
        """One value is infinite, or not a number."""
        name, shape = self._draw.choice(list(self._shapes.items()))
        values = np.ones(shape, "<f4")
        values.flat[self._draw.randrange(values.size)] = self._draw.choice([np.nan, np.inf, -np.inf])
        changed = [dict(one) | ({"data": values.tobytes()} if one["name"] == name else {}) for one in self._model]
        return update(changed)

    def unwanted_extra(self) -> bytes:
        """Tensors beside the model that nobody asked for: few large ones, or many small ones."""
        group = self._draw.choice([tiny(self._size // 45), tensors_of({"control": (self._size // 4,)})])
        return update(self._model, extra={"control": group})

    def cut_groups(self) -> bytes:
        """Many groups of them, and the last byte is missing."""
        each = self._draw.choice([1, 100, 10_000])
        return groups(self._model, max(1, min(65_535, self._size // (45 * each))), each)

    def twice(self) -> bytes:
        """One key of the document stands twice."""
        key = self._draw.choice(["tensors", "metrics", "metadata"])
        value = self._model if key == "tensors" else {}
        return b"\x84" + update(self._model)[1:] + msgpack.packb(key) + msgpack.packb(value)

    def told_twice(self) -> bytes:
        """One key of what is told stands twice, after many others."""
        count = min(self._size // 12, 65_000)
        told = b"".join(msgpack.packb(f"key-{i}") + b"\x01" for i in range(count)) + 2 * (msgpack.packb("a") + b"\x01")
        where = self._draw.choice(["metrics", "metadata"])
        both = b"\xdf" + struct.pack(">I", count + 2) + told
        return b"\x82" + msgpack.packb("tensors") + msgpack.packb(self._model) + msgpack.packb(where) + both

    def much_told(self) -> bytes:
        """Texts as long as the document."""
        told = {f"key-{i}": "x" * 9_999 for i in range(max(7, self._size // 10_000))}
        return update(self._model, metadata={**EXAMPLES, **told})

    def too_few(self) -> bytes:
        """The model without one of its tensors."""
        kept = list(self._model)
        kept.pop(self._draw.randrange(len(kept)))
        return update(kept)

    def cut(self) -> bytes:
        """Somewhere."""
        whole = update(self._model)
        return whole[: self._draw.randrange(1, len(whole))]

    def more_behind(self) -> bytes:
        """Something stands behind the document."""
        return update(self._model) + self._ballast()

    def noise(self) -> bytes:
        """Bytes drawn at random."""
        return self._ballast()


KINDS: list[Callable[[Generator], bytes]] = [
    one for name, one in vars(Generator).items() if callable(one) and not name.startswith("_")
]
