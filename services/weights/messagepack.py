"""MessagePack values, read one after the other where they lie; each is of the type that is asked for, or refused.

Nothing is made but what was asked for, so what a document costs is settled by whoever reads it. Specification:
https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import MalformedUpdate

Scalar = str | bool | int | float | None

_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}  # bytes of the length that follows the first byte
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FLOATS = {0xCA: struct.Struct(">f"), 0xCB: struct.Struct(">d")}


class Reader:
    """Of `data`, from `at` on. Every method raises MalformedUpdate, which says at which byte what was expected."""

    __slots__ = ("at", "data", "size")

    def __init__(self, data: memoryview, at: int = 0) -> None:
        self.data, self.at, self.size = data, at, len(data)

    def wrong(self, what: str) -> MalformedUpdate:
        """That the document is none, and why."""
        return MalformedUpdate(f"the body is not a weights document: {what} (at byte {self.at})")

    def end(self) -> None:
        """Nothing follows."""
        if self.at != self.size:
            raise self.wrong(f"{self.size - self.at} bytes follow its end")

    def array(self, what: str) -> int:
        """The number of values that follow as an array."""
        return self._count(what, "an array", 0x90, _ARRAYS)

    def map(self, what: str) -> int:
        """The number of keys, each with a value, that follow as a map."""
        return self._count(what, "a map", 0x80, _MAPS)

    def keys(
        self, what: str, most: int, longest: int, longest_map: int | None = None, after: str | None = None
    ) -> Iterator[str]:
        """The keys of a map of at most so many, each once; whoever asks reads the value of each before the next.

        `longest_map`: bytes that all of it may have. `after`: the first key of the document's own map, whose value has
        been read.
        """
        count = self.map(what) if after is None else (self.data[0] & 15) - 1
        if count > most:
            raise self.wrong(f"{what} has {count} keys, the limit is {most}")
        known, begin = {after}, self.at
        for _ in range(count):
            key = self.text(f"a key of {what}", longest)
            if key in known:
                raise self.wrong(f"{what} holds the key {key!r} twice")
            known.add(key)
            yield key
            if longest_map is not None and self.at - begin > longest_map:
                raise self.wrong(f"{what} has more than {longest_map} bytes")

    def text(self, what: str, longest: int) -> str:
        """A string of at most so many characters."""
        lead = self._lead(what)
        if 0xA0 <= lead <= 0xBF:
            size, at = lead & 31, self.at + 1
        elif lead in _STRINGS:
            size, at = self._number(_STRINGS[lead])
        else:
            raise self._other(what, "a string")
        raw = self._bytes(what, at, size, 4 * longest)
        try:
            text = str(raw, "utf-8")
        except UnicodeDecodeError:
            raise self.wrong(f"{what} is not UTF-8") from None
        if len(text) > longest:
            raise self.wrong(f"{what} has {len(text)} characters, the limit is {longest}")
        self.at = at + size
        return text

    def binary(self, what: str, most: int | None = None) -> memoryview:
        """Bytes, at most so many, where they lie."""
        lead = self._lead(what)
        if lead not in _BINARIES:
            raise self._other(what, "bytes (bin)")
        size, at = self._number(_BINARIES[lead])
        raw = self._bytes(what, at, size, most)
        self.at = at + size
        return raw

    def natural(self, what: str) -> int:
        """An integer that is not negative."""
        lead = self._lead(what)
        if lead < 0x80:
            self.at += 1
            return lead
        if lead not in _UNSIGNED and lead not in _SIGNED:
            raise self._other(what, "an integer")
        value = self._integer(lead)
        if value < 0:
            raise self.wrong(f"{what} is negative")
        return value

    def flag(self, what: str) -> bool:
        """True or false."""
        lead = self._lead(what)
        if lead not in (0xC2, 0xC3):
            raise self._other(what, "true or false")
        self.at += 1
        return lead == 0xC3

    def number(self, what: str) -> int | float | None:
        """An integer, a float or nil."""
        lead = self._lead(what)
        if lead == 0xC0:
            self.at += 1
            return None
        if lead < 0x80 or lead >= 0xE0:
            self.at += 1
            return lead if lead < 0x80 else lead - 256
        if lead in _FLOATS:
            form, at = _FLOATS[lead], self.at + 1
            self._bytes(what, at, form.size, None)
            self.at = at + form.size
            value: float = form.unpack_from(self.data, at)[0]
            return value
        if lead in _UNSIGNED or lead in _SIGNED:
            return self._integer(lead)
        raise self._other(what, "a number or nil")

    def scalar(self, what: str, longest: int) -> Scalar:
        """A number, nil, true, false, or a string of at most so many characters."""
        lead = self._lead(what)
        if lead in (0xC2, 0xC3):
            return self.flag(what)
        return self.text(what, longest) if 0xA0 <= lead <= 0xBF or lead in _STRINGS else self.number(what)

    def _lead(self, what: str) -> int:
        if self.at >= self.size:
            raise self.wrong(f"it ends before {what}")
        return self.data[self.at]

    def _count(self, what: str, kind: str, fix: int, wide: dict[int, int]) -> int:
        lead = self._lead(what)
        if lead & 0xF0 == fix:
            self.at += 1
            return lead & 15
        if lead not in wide:
            raise self._other(what, kind)
        count, self.at = self._number(wide[lead])
        return count

    def _integer(self, lead: int) -> int:
        size = _UNSIGNED.get(lead) or _SIGNED[lead]
        raw = self._bytes("an integer", self.at + 1, size, None)
        self.at += 1 + size
        return int.from_bytes(raw, "big", signed=lead in _SIGNED)

    def _number(self, size: int) -> tuple[int, int]:
        """What the bytes after the first say, and where the next begin."""
        raw = self._bytes("a length", self.at + 1, size, None)
        return int.from_bytes(raw, "big"), self.at + 1 + size

    def _bytes(self, what: str, at: int, size: int, most: int | None) -> memoryview:
        if most is not None and size > most:
            raise self.wrong(f"{what} has {size} bytes, the limit is {most}")
        if at + size > self.size:
            raise self.wrong(f"it ends within {what}")
        return self.data[at : at + size]

    def _other(self, what: str, wanted: str) -> MalformedUpdate:
        return self.wrong(f"{what} must be {wanted}, got {_kind(self.data[self.at])}")


def _kind(lead: int) -> str:
    """What a first byte begins, in words."""
    names: list[tuple[Callable[[int], Any], str]] = [
        (lambda x: x < 0x80 or x >= 0xE0 or x in _UNSIGNED or x in _SIGNED, "an integer"),
        (lambda x: x <= 0x8F or x in _MAPS, "a map"),
        (lambda x: x <= 0x9F or x in _ARRAYS, "an array"),
        (lambda x: x <= 0xBF or x in _STRINGS, "a string"),
        (lambda x: x == 0xC0, "nil"),
        (lambda x: x in (0xC2, 0xC3), "a boolean"),
        (lambda x: x in _BINARIES, "bytes"),
        (lambda x: x in _FLOATS, "a float"),
        (lambda x: x == 0xC1, "the byte 0xc1, which MessagePack does not use"),
    ]
    return next((name for holds, name in names if holds(lead)), "an extension type")
