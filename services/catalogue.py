"""Every part that a run's configuration may name, with its parameters: what `metis rules` and the documentation list.

Nothing is written here twice: names are those of the registries, what a part is for is the first sentence of its class,
with the source in brackets, and parameters say themselves what they may be (parameters.py, config.py).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, get_args

from .aggregation import RULES
from .algorithms import ALGORITHMS
from .config import Encoding, Schedule
from .encoding import CODECS
from .optimizers import OPTIMIZERS
from .parameters import Parameter, parameters_of
from .scaling import SCALERS
from .scheduling import SCHEDULERS
from .selection import SELECTORS
from .transforms import TRANSFORMS

FIRST_SENTENCE = re.compile(r"(?P<meaning>.+?)(?: \((?P<source>[^()]*\b\d{4}\b[^()]*)\))?[.;](?:\s|$)")


@dataclass(frozen=True)
class Setting:
    """A parameter of a part: the key under which it is given, and what it may be."""

    key: str
    default: str  # as it is written in a configuration; "required", or "unset"
    range: str
    meaning: str


@dataclass(frozen=True)
class Entry:
    """A part: the key that names it, its name, what it is for, and where it is from."""

    key: str
    name: str
    meaning: str
    source: str  # empty: ours
    settings: tuple[Setting, ...]


def entries() -> list[Entry]:
    """All of them, key by key."""
    return [*_registered(), *_of_config()]


def _registered() -> Iterator[Entry]:
    tables: list[tuple[str, str, Mapping[str, Any]]] = [
        ("aggregation_rule", "aggregation", RULES),
        ("server_optimizer", "optimizer", OPTIMIZERS),
        ("transforms", "transforms[]", TRANSFORMS),
        ("selector", "selection.parameters", SELECTORS),
        ("scaling_factor", "", SCALERS),
        ("algorithm", "", ALGORITHMS),
    ]
    for key, table, registry in tables:
        for name, part in registry.items():
            settings = [_setting(f"{table}.{one}", part, one, what) for one, what in parameters_of(part).items()]
            yield _entry(key, name, part, settings)


def _of_config() -> Iterator[Entry]:
    """Schedulers and encodings, whose parameters are keys of the configuration's own tables."""
    for name, part in SCHEDULERS.items():
        yield _entry("scheduler", name, part, list(_keys("schedule", Schedule, name)))
    for name, codec in CODECS.items():
        key = "encoding.up" if name not in get_args(Encoding.model_fields["down"].annotation) else "encoding.up, down"
        yield _entry(key, name, type(codec), list(_keys("encoding", Encoding, name)))


def _entry(key: str, name: str, part: Any, settings: list[Setting]) -> Entry:
    text = " ".join(inspect.cleandoc(part.__doc__ or "").split())
    found = FIRST_SENTENCE.match(text)
    meaning, source = (found["meaning"], found["source"] or "") if found else (text, "")
    return Entry(key, name, meaning, source, tuple(settings))


def _setting(key: str, part: Any, name: str, what: Parameter) -> Setting:
    default = part.__dataclass_fields__[name].default
    return Setting(key, "required" if default is MISSING else _written(default), what.range, what.meaning)


def _keys(table: str, model: Any, name: str) -> Iterator[Setting]:
    """The keys of a table that are of this part alone: their description begins with its name."""
    for key, field in model.model_fields.items():
        of, _, meaning = (field.description or "").partition(": ")
        if of != name:
            continue
        limits = {
            known: getattr(one, short) for one in field.metadata for known, short in LIMITS if hasattr(one, short)
        }
        kinds = set(get_args(field.annotation)) or {field.annotation}
        what = Parameter(meaning, **limits, whole=int in kinds) if limits else None
        yield Setting(f"{table}.{key}", _written(field.default), what.range if what else "true or false", meaning)


LIMITS = (("least", "ge"), ("above", "gt"), ("most", "le"), ("below", "lt"))


def _written(value: Any) -> str:
    if value is None:
        return "unset"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
