"""A run's configuration as its user wrote it, in a file, in Python or as options: one sparse RunConfig."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services import config as cfg
from services.config import ServerParams, TerminationSignals
from services.errors import InvalidConfig

WORD = re.compile(r"^[A-Za-z][\w./*-]*$")  # a value that needs no quotes: FedAvg
CONDITION = re.compile(r"^\s*(?P<metric>[^\s<>=!]+)\s*(?P<sign>>=|<=)\s*(?P<score>\S+)\s*$")
MODES = {">=": "max", "<=": "min"}
PATHS = {  # of the options of `metis run`
    "learners": "min_learners",
    "rounds": "termination.federation_rounds",
    "minutes": "termination.execution_cutoff_time_mins",
    "patience": "termination.patience_rounds",
    "scheduler": "scheduler",
    "rule": "aggregation_rule",
    "scaling_factor": "scaling_factor",
    "participation": "selection.participation_ratio",
}


def of_session(
    learners: Sequence[ServerParams] | int,
    signals: TerminationSignals | None,
    is_async: bool,
    config: Mapping[str, Any] | str | Path | None,
    learners_timeout_s: float,
) -> dict[str, Any]:
    """What a DriverSession sends: signals and `is_async` go before `config`, that before the number of learners."""
    count = learners if isinstance(learners, int) else len(learners)
    defaults: dict[str, Any] = {"schedule": {"join_deadline_s": learners_timeout_s}}
    if count > 0:
        defaults["min_learners"] = count
    given = cfg.merge(sparse(config), of_signals(signals))
    if is_async:
        given["scheduler"] = "Asynchronous"
    return checked(cfg.merge(defaults, given))


def of_command_line(file: Path | None, given: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The file, then the options that were given, then each `--set`; raises InvalidConfig for what cannot be."""
    config = sparse(file)
    if given.get("until") is not None:
        config = cfg.merge(config, {"termination": of_condition(given["until"])})
    for name, path in PATHS.items():
        if given.get(name) is not None:
            config = cfg.merge(config, nested(path, given[name]))
    return checked(cfg.merge(config, of_options(assignments)))


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


def of_condition(text: str) -> dict[str, Any]:
    """The `termination` table of `--until`'s text; raises InvalidConfig that shows how to write it."""
    found = CONDITION.match(text)
    score = _number(found["score"]) if found else None
    if found is None or score is None:
        raise InvalidConfig(f"--until {text!r}: write 'accuracy>=0.9' or 'loss<=0.2', in quotes", got=text)
    return {
        "evaluation_metric": found["metric"],
        "evaluation_metric_cutoff_score": score,
        "evaluation_metric_mode": MODES[found["sign"]],
    }


def _value(text: str, value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if WORD.match(value):
            return value
        raise InvalidConfig(
            f'--set {text!r}: {value!r} is not a TOML value; numbers, true, false, [lists] and "strings" are', got=text
        ) from error


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
