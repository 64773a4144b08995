"""A dataclass as JSON and back, field by field; what it holds of this package's messages goes as they are shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec
from pydantic import BaseModel

T = TypeVar("T")


def dump(value: Any) -> bytes:
    """JSON of a value."""
    return msgspec.json.encode(value, enc_hook=_shown)


class Record(Generic[T]):
    """The fields of a class that are written as they are. The caller writes the others, `but`, in a form of its own."""

    def __init__(self, kind: type[T], but: Collection[str] = ()) -> None:
        hints = get_type_hints(kind)
        self._types = {one.name: hints[one.name] for one in fields(kind) if one.name not in but}  # type: ignore[arg-type]

    def dump(self, one: T, **beside: Any) -> bytes:
        """JSON of one, with what stands `beside` the fields."""
        return dump({name: getattr(one, name) for name in self._types} | beside)

    def load(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of one, as arguments of its class; raises msgspec.ValidationError.

        A field that was not written is left to its default.
        """
        return {
            name: msgspec.convert(row[name], kind, dec_hook=_made) for name, kind in self._types.items() if name in row
        }


def _shown(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} is not written down")


def _made(kind: type[Any], value: Any) -> Any:
    if issubclass(kind, BaseModel):
        return kind.model_validate(value)
    raise NotImplementedError(f"{kind.__name__} is not read")
