"""What a federation is (`RunConfig`) and where its parts run (`ServerParams` and friends), with the names of MetisFL.

Every class is frozen and refuses unknown keys, naming the nearest known one. A `RunConfig` is sparse on the wire: a
client sends only what its user wrote, the controller merges it over its defaults (`merge`).
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.dataclasses import dataclass

from .errors import InvalidConfig
from .schedules import KINDS, Changing

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)
Seconds = Annotated[float, Field(gt=0, le=366 * 86400)]
MAX_DEPTH = 32  # levels of maps and lists in a configuration
MAX_EXPLAINED = 20  # wrong keys and values that an error names
DIGEST_PATTERN = r"^sha256-[0-9a-f]{64}$"
# What a stored configuration of an earlier version means by a key that it does not have, where that is not the default
# of today: a run goes on as it began.
MEANT_BEFORE: dict[str, Any] = {"schedule": {"factor_cap": "none"}}
RATE_BEFORE = {"learning_rate": 0.1}  # of these server optimizers, in a configuration that names none
RATES_BEFORE = {name: {"optimizer": RATE_BEFORE} for name in ("FedAdagrad", "FedAdam", "FedYogi")}


class Part(BaseModel):
    """A table of the run's configuration."""

    model_config = STRICT


@dataclass(config=CHECKED, frozen=True)
class TerminationSignals:
    """When a run ends: any one signal ends it, with the reason in the results (enforced by the controller)."""

    federation_rounds: Annotated[int, Field(ge=1, description="N rounds are N aggregations")] | None = None
    execution_cutoff_time_mins: Annotated[float, Field(gt=0, description="minutes on a monotonic clock")] | None = None
    evaluation_metric: Annotated[str, Field(min_length=1, description="name of a combined metric")] | None = None
    evaluation_metric_cutoff_score: Annotated[float, Field(description="the score that ends the run")] | None = None
    evaluation_metric_mode: Annotated[Literal["max", "min"], Field(description="max: at least the score")] = "max"
    patience_rounds: (
        Annotated[int, Field(ge=1, description="end after so many rounds without a better metric")] | None
    ) = None


class Selection(Part):
    """Who trains in a round."""

    participation_ratio: float = Field(1.0, gt=0, le=1, description="share of the active learners drawn each round")
    over_selection: float = Field(0.0, ge=0, le=10, description="draw this share more, close at the first that report")
    parameters: dict[str, Any] = Field(default_factory=dict, description="parameters of the selector")


class Schedule(Part):
    """When a round closes, and how long anything is waited for."""

    round_deadline_s: Seconds = Field(3600, description="a round, and an evaluation, is closed after this time")
    min_updates: int = Field(1, ge=1, description="quorum: fewer updates at the deadline fail the round")
    lease_s: Seconds = Field(30, description="a learner not heard of for this long is lost until it returns")
    join_deadline_s: Seconds = Field(3600, description="how long a run waits for enough learners")
    max_staleness: int | None = Field(
        None, ge=0, description="Asynchronous: refuse updates of models that are more community models old"
    )
    max_failed_rounds: int = Field(
        3, ge=1, description="so many rounds in a row whose updates make no model (an overflow, say) end the run"
    )
    factor_cap: Annotated[float, Field(ge=1)] | Literal["none"] = Field(
        1000.0,
        description="from three updates on, a scaling factor counts at most so many times the median of the others'"
        " that are above 0; `none`: as it is",
    )
    semi_sync_lambda: float | None = Field(None, gt=0, description="SemiSynchronous: step budget in slowest epochs")
    semi_sync_recompute_num_updates: bool = Field(False, description="SemiSynchronous: a new budget every round")


class Encoding(Part):
    """The form in which large float tensors travel; a learner that cannot do it sends and gets `none`, their own bytes.

    Updates (`up`) are sent as differences to the model that the learner was given.
    """

    up: Literal["none", "bf16", "int8", "topk"] = Field("none", description="of updates; all but none are lossy")
    down: Literal["none", "bf16", "int8"] = Field("none", description="of models, to train and to evaluate; lossy")
    topk_ratio: float = Field(0.01, gt=0, le=1, description="topk: share of each tensor's elements that is sent")


class EvaluationPlan(Part):
    """Which community models are evaluated, and by whom."""

    who: Literal["members", "everybody", "driver"] = Field(
        "members",
        description="who scores a model: those that trained for its round, every learner that is here, or the driver on"
        " data of its own, which sends its scores to `PUT /v1/runs/{run_id}/rounds/{number}/scores`",
    )
    every: int = Field(1, ge=0, description="every n-th round and the last; 0 turns evaluation off")
    initial: bool = Field(False, description="evaluate model 0 before the first round")
    overlap: bool = Field(False, description="the next round trains while this model is evaluated")


class RunConfig(Part):
    """One training run. The values shown are the defaults of a controller that was not told otherwise."""

    name: str | None = Field(None, max_length=200)
    seed: int = Field(1990, ge=0, lt=2**63, description="of every random draw of the run")
    min_learners: int = Field(1, ge=1, description="the run starts when so many learners are there")
    aggregation_rule: str = "FedAvg"
    aggregation: dict[str, Any] = Field(default_factory=dict, description="parameters of the rule")
    scaling_factor: str = "NumTrainingExamples"
    scheduler: str = "Synchronous"
    selector: str = "All"
    selection: Selection = Selection()
    schedule: Schedule = Schedule()
    transforms: list[dict[str, Any]] = Field(
        default_factory=list, description="of each update, in this order: `name` and its parameters"
    )
    encoding: Encoding = Encoding()
    algorithm: str = Field("None", description="what learners do beside training: `SCAFFOLD` gives them controls")
    server_optimizer: str = "None"
    optimizer: dict[str, Any] = Field(default_factory=dict, description="parameters of the server optimizer")
    train: dict[str, Any] = Field(default_factory=dict, description="handed to Learner.train as it is")
    evaluate: dict[str, Any] = Field(default_factory=dict, description="handed to Learner.evaluate as it is")
    train_schedule: dict[str, Changing] = Field(default_factory=dict, description="values of `train` by round")
    evaluate_schedule: dict[str, Changing] = Field(default_factory=dict, description="values of `evaluate` by round")
    evaluation: EvaluationPlan = EvaluationPlan()
    termination: TerminationSignals = TerminationSignals()
    initial_model: str | None = Field(None, pattern=DIGEST_PATTERN, description="a model put before, else a learner's")
    advance: Literal["auto", "manual"] = "auto"


@dataclass(config=CHECKED, frozen=True)
class ServerParams:
    """Where a process listens. TLS needs all three of the certificates and key (paths of PEM files), or none."""

    hostname: str = "localhost"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    root_certificate: str | None = None
    server_certificate: str | None = None
    private_key: str | None = None

    def __post_init__(self) -> None:
        given = [self.root_certificate, self.server_certificate, self.private_key]
        if any(given) and not all(given):
            raise ValueError("TLS needs root_certificate, server_certificate and private_key, or none of them")

    @property
    def url(self) -> str:
        """Base URL at which clients reach this server."""
        return _url(self.hostname, self.port, tls=self.server_certificate is not None)


@dataclass(config=CHECKED, frozen=True)
class ClientParams:
    """Which controller a client talks to. A `root_certificate` (PEM path) means TLS verified against it."""

    hostname: str = "localhost"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    root_certificate: str | None = None

    @property
    def url(self) -> str:
        """Base URL of the controller."""
        return _url(self.hostname, self.port, tls=self.root_certificate is not None)


@dataclass(config=CHECKED, frozen=True)
class ControllerConfig:
    """The controller's defaults for the runs that are posted to it; None leaves the system's default."""

    aggregation_rule: str = "FedAvg"
    scheduler: str = "Synchronous"
    scaling_factor: str = "NumTrainingExamples"
    participation_ratio: float = 1.0
    stride_length: int | None = None
    semi_sync_lambda: float | None = None
    semi_sync_recompute_num_updates: bool | None = None

    def run_defaults(self) -> dict[str, Any]:
        """The same as a sparse RunConfig."""
        return without_nulls(
            {
                "aggregation_rule": self.aggregation_rule,
                "aggregation": {"stride_length": self.stride_length},
                "scheduler": self.scheduler,
                "scaling_factor": self.scaling_factor,
                "selection": {"participation_ratio": self.participation_ratio},
                "schedule": {
                    "semi_sync_lambda": self.semi_sync_lambda,
                    "semi_sync_recompute_num_updates": self.semi_sync_recompute_num_updates,
                },
            }
        )


@dataclass(config=CHECKED, frozen=True)
class ModelStoreConfig:
    """Where models live. `lineage_length` k keeps the newest k updates per learner, and of each run what its newest k
    rounds were made of beside them; 0 keeps all.

    `fsync` is for OnDisk: models survive a loss of power too. The rest is for the store Redis: hostname and port go
    before those of the URL, which may hold a password.
    """

    model_store: str = "InMemory"
    lineage_length: Annotated[int, Field(ge=0)] = 0
    model_store_hostname: str | None = None
    model_store_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    model_store_url: SecretStr | None = None
    model_store_prefix: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    fsync: bool = False


def load(path: str | Path) -> dict[str, Any]:
    """A `federation.toml` as the sparse RunConfig that its user wrote (checked, not filled with defaults).

    Raises InvalidConfig, naming the file, for text that is not TOML and for keys or values that cannot be.
    """
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"{path}: {error}", file=str(path)) from error
    try:
        resolve({}, given)
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error.detail}", file=str(path), **error.values) from error
    return given


def resolve(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> RunConfig:
    """The RunConfig of `given` over `defaults`; raises InvalidConfig with every wrong key and value."""
    check_plain(given)
    try:
        return RunConfig.model_validate(merge(defaults, given))
    except ValidationError as error:
        wrong = explain(error, RunConfig)
        raise InvalidConfig("; ".join(wrong), errors=wrong) from error


def stored(config: Mapping[str, Any]) -> RunConfig:
    """The RunConfig of a configuration as it was stored when its run began, perhaps by an earlier version.

    Raises ValidationError for what cannot be one.
    """
    meant = MEANT_BEFORE | RATES_BEFORE.get(config.get("server_optimizer", ""), {})
    return RunConfig.model_validate(merge(meant, config))


def check_plain(given: Mapping[str, Any]) -> None:
    """Raise InvalidConfig for what cannot be sent as JSON, or lies deeper than anyone would write."""
    if _deeper_than(MAX_DEPTH, given):
        raise InvalidConfig(f"a value is nested deeper than {MAX_DEPTH} levels", limit=MAX_DEPTH)
    try:
        json.dumps(given, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"a value cannot be sent as JSON: {error}") from error


def canonical(config: Mapping[str, Any]) -> str:
    """A configuration as JSON with sorted keys and no spaces: one text for equal values, whoever writes it."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def _deeper_than(levels: int, value: Any) -> bool:
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return levels == 0 or any(_deeper_than(levels - 1, one) for one in below)


def merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `defaults`, nested maps key by key; a null means that the key is absent."""
    merged = dict(defaults)
    for key, value in given.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` without the keys whose value is None, and without maps that become empty by that."""
    kept = {k: without_nulls(v) if isinstance(v, Mapping) else v for k, v in value.items() if v is not None}
    return {k: v for k, v in kept.items() if v != {}}


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> list[str]:
    """One line for people per wrong key or value: where, what was wrong, and the nearest known key."""
    lines = []
    for item in error.errors(include_url=False, include_context=False)[:MAX_EXPLAINED]:
        where = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path"))
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(f"{where}: unknown key{nearest(str(item['loc'][-1]), _keys(model, item['loc'][:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"{where}: missing")
        elif item["type"] == "union_tag_not_found":
            lines.append(f"{where}.kind: missing; known: {', '.join(KINDS)}")
        elif item["type"] == "union_tag_invalid":
            kind = str(item["input"]["kind"])
            lines.append(f"{where}.kind: there is no {kind[:80]!r}{nearest(kind, KINDS)}")
        else:
            shown = repr(item.get("input"))
            got = f" (got {shown[:80]}{'…' if len(shown) > 80 else ''})"
            if item["type"] == "value_error" and not where:  # of the whole, which may hold secrets
                lines.append(item["msg"].removeprefix("Value error, "))
            else:
                lines.append(f"{where or 'body'}: {item['msg'].removeprefix('Value error, ')}{got}")
    return lines


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint to append to an error: the known names nearest to `word`, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(names)}" if names else ""


def _keys(model: type[BaseModel] | None, location: tuple[int | str, ...]) -> list[str]:
    fields: Any = getattr(model, "model_fields", {})
    for part in location:
        kind = fields[part].annotation if part in fields else KINDS.get(str(part))
        fields = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", {})
    return list(fields)


def _url(hostname: str, port: int, tls: bool) -> str:
    host = f"[{hostname}]" if ":" in hostname else hostname
    return f"{'https' if tls else 'http'}://{host}:{port}"
