"""A run's configuration as its user wrote it: a file, then options over it, as one sparse RunConfig."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services import config as cfg
from services.config import TerminationSignals
from services.errors import InvalidConfig

WORD = re.compile(r"^[A-Za-z][\w./*-]*$")  # a value that needs no quotes: FedAvg


def sparse(config: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """`config`, read when it is the path of a `federation.toml`; null means absent."""
    if config is None:
        return {}
    if isinstance(config, str | Path):
        return cfg.load(config)
    return cfg.merge({}, config)


def of_signals(signals: TerminationSignals | None) -> dict[str, Any]:
    """The `termination` table of what the signals set."""
    if signals is None:
        return {}
    given = dataclasses.asdict(signals)
    if signals.evaluation_metric is None:
        given["evaluation_metric_mode"] = None
    return cfg.without_nulls({"termination": given})


def of_options(assignments: Sequence[str]) -> dict[str, Any]:
    """The tables of `key.path=value` options; values are TOML, a plain word needs no quotes."""
    given: dict[str, Any] = {}
    for text in assignments:
        path, sign, value = text.partition("=")
        if not sign or not all(path.strip().split(".")):
            raise InvalidConfig(
                f"--set {text!r}: write --set key.path=value, for example --set train.lr=0.01", got=text
            )
        given = cfg.merge(given, nested(path.strip(), _value(text, value.strip())))
    return given


def nested(path: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` of `a.b`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` if it can be a RunConfig; raises InvalidConfig with every wrong key and value."""
    cfg.resolve({}, given)
    return dict(given)


def _value(text: str, value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if WORD.match(value):
            return value
        raise InvalidConfig(
            f'--set {text!r}: {value!r} is not a TOML value; numbers, true, false, [lists] and "strings" are', got=text
        ) from error
