"""A run's configuration turned into its parts, one per axis; what cannot work is refused before the run starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, TypeVar

from .. import schedules, termination
from ..aggregation import RULES, Aggregator, check_update, min_updates
from ..algorithms import ALGORITHMS, Algorithm
from ..config import Encoding, RunConfig, nearest
from ..errors import InvalidConfig, UnknownModel
from ..optimizers import OPTIMIZERS, ServerOptimizer
from ..scaling import SCALERS, Scaler
from ..scheduling import SCHEDULERS, Scheduler
from ..selection import SELECTORS, Selector, target_count
from ..transforms import TRANSFORMS, Transform
from . import combinations
from .rounds import ModelInfo

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """The parts of one run: who, when, how much, in what form, combine, move, and what travels beside the model."""

    selector: Selector
    scheduler: Scheduler
    scaler: Scaler
    encoding: Encoding
    aggregator: Aggregator
    optimizer: ServerOptimizer
    algorithm: Algorithm
    transforms: tuple[Transform, ...] = ()
    factor_cap: float | None = None  # None: factors count as they are

    def check_update(self, metadata: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Raise InvalidWeight, naming the key, for an update without what a part reads beside the tensors."""
        check_update(self.aggregator, metadata, metrics)
        check_update(self.scheduler, metadata, metrics)


def told_whole(config: RunConfig, parts: Plan) -> RunConfig:
    """The configuration with the parameters of the server optimizer that it leaves to their defaults: the run goes on
    with them when a later version has others."""
    known: dict[str, Any] = asdict(parts.optimizer) if is_dataclass(parts.optimizer) else {}
    return config.model_copy(update={"optimizer": {**known, **config.optimizer}})


def plan(config: RunConfig, lineage_length: int = 0) -> Plan:
    """The parts that `config` names; raises InvalidConfig with the known names or parameters.

    `lineage_length` is how many updates of a learner the model store keeps, 0 for all.
    """
    termination.check(config.termination, evaluates=config.evaluation.every > 0)
    parts = check_names(config)
    combinations.check(config, parts.aggregator, parts.scheduler, lineage_length)
    combinations.check_evaluation(config)
    combinations.check_algorithm(config, parts.algorithm, parts.scheduler)
    _check_updates(config, parts.aggregator)
    _check_schedules(config)
    return parts


def check_names(config: RunConfig) -> Plan:
    """The same for a configuration that need not be able to end, such as a controller's defaults."""
    return Plan(
        selector=_make("selector", SELECTORS, config.selector, "selection.parameters", config.selection.parameters),
        scheduler=_make("scheduler", SCHEDULERS, config.scheduler),
        scaler=_make("scaling_factor", SCALERS, config.scaling_factor),
        encoding=config.encoding,
        aggregator=_make("aggregation_rule", RULES, config.aggregation_rule, "aggregation", config.aggregation),
        optimizer=_make("server_optimizer", OPTIMIZERS, config.server_optimizer, "optimizer", config.optimizer),
        algorithm=_make("algorithm", ALGORITHMS, config.algorithm),
        transforms=tuple([_transform(f"transforms[{at}]", given) for at, given in enumerate(config.transforms)]),
        factor_cap=None if config.schedule.factor_cap == "none" else config.schedule.factor_cap,
    )


def _transform(where: str, given: Mapping[str, Any]) -> Transform:
    """A transform of its table: its name, and its parameters."""
    name = given.get("name")
    if not isinstance(name, str):
        raise InvalidConfig(f"{where}: give its name{nearest('', TRANSFORMS)}", key=f"{where}.name", got=name)
    parameters = {key: value for key, value in given.items() if key != "name"}
    return _make(where, TRANSFORMS, name, where, parameters)


def _check_updates(config: RunConfig, rule: Aggregator) -> None:
    """Refuse a run whose first round may begin with fewer learners than the rule needs updates."""
    needed, quorum, ratio = min_updates(rule), config.schedule.min_updates, config.selection.participation_ratio
    smallest = target_count(max(1, quorum, config.min_learners), ratio, quorum)
    if smallest < needed:
        keys = ["schedule.min_updates"] if ratio < 1 else ["min_learners", "schedule.min_updates"]
        raise InvalidConfig(
            f"aggregation_rule: {rule} needs {needed} learners a round, but a round may begin with {smallest}: set"
            f" {' or '.join(keys)} to at least {needed}",
            key=keys[0],
            expected=needed,
            got=smallest,
        )


def _check_schedules(config: RunConfig) -> None:
    """Refuse a schedule of a parameter that has no value to begin at."""
    for table, given, by_round in (
        ("train", config.train, config.train_schedule),
        ("evaluate", config.evaluate, config.evaluate_schedule),
    ):
        for name in schedules.missing(given, by_round):
            raise InvalidConfig(
                f"{table}_schedule.{name}: begins at the number {table}.{name}, which must be given",
                key=f"{table}.{name}",
                got=given.get(name),
            )


def initial_model(config: RunConfig, held: Callable[[str], ModelInfo | None]) -> ModelInfo | None:
    """The model that a run begins with, if it names one; raises UnknownModel when it was not put before."""
    if config.initial_model is None:
        return None
    info = held(config.initial_model)
    if info is None:
        raise UnknownModel(f"initial_model: put it first, PUT /v1/models/{config.initial_model}")
    return info


def _make(
    key: str,
    registry: Mapping[str, Callable[..., T]],
    name: str,
    table: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> T:
    if name not in registry:
        raise InvalidConfig(f"{key}: there is no {name!r}{nearest(name, registry)}", key=key, got=name)
    takes = inspect.signature(registry[name]).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        for unknown in sorted(set(parameters or {}) - set(takes)):
            hint = nearest(unknown, takes) or "; it takes no parameters"
            raise InvalidConfig(f"{table}: {name} does not take {unknown!r}{hint}", key=f"{table}.{unknown}")
    missing = [
        one.name
        for one in takes.values()
        if one.default is one.empty and not one.kind.name.startswith("VAR") and one.name not in (parameters or {})
    ]
    if missing:
        raise InvalidConfig(f"{table}: {name} needs {', '.join(missing)}", key=table)
    try:
        return registry[name](**(parameters or {}))
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"{table}: {name} does not take {dict(parameters or {})}: {error}", key=table) from error
