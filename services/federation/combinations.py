"""Which schedulers and rules make sense together, and with what else of a run; the rest is refused before it starts."""

from __future__ import annotations

from ..aggregation import RULES, Aggregator, arrivals, keeps_previous, takes_rounds
from ..algorithms import Algorithm
from ..config import RunConfig
from ..errors import InvalidConfig
from ..scheduling import SCHEDULERS, Scheduler, SemiSynchronous, streams


def check(config: RunConfig, rule: Aggregator, scheduler: Scheduler, lineage_length: int) -> None:
    """Raise InvalidConfig, saying why and what would do. `lineage_length`: updates kept of a learner, 0 for all."""
    if keeps_previous(rule) and lineage_length == 1:
        raise InvalidConfig(
            f"aggregation_rule: {config.aggregation_rule} needs the update before a learner's newest, and the model"
            " store keeps one: start the controller with METIS_LINEAGE_LENGTH=2, or 0 to keep all",
            key="lineage_length",
            expected=2,
            got=1,
        )
    if isinstance(scheduler, SemiSynchronous) and config.schedule.semi_sync_lambda is None:
        raise InvalidConfig(
            "schedule.semi_sync_lambda: SemiSynchronous needs it, the step budget in epochs of the slowest learner",
            key="schedule.semi_sync_lambda",
        )
    if not streams(scheduler):
        if not takes_rounds(rule):
            _refuse_rule(config, "takes updates one by one as they come, and this scheduler waits for rounds")
        return
    if arrivals(rule) is None:
        _refuse_rule(config, "combines the updates of a round, and Asynchronous has none")
    _check_stream(config)


def check_algorithm(config: RunConfig, algorithm: Algorithm, scheduler: Scheduler) -> None:
    """Raise InvalidConfig for an algorithm that needs more of the run than it has."""
    if not algorithm.extras:
        return
    if streams(scheduler):
        raise InvalidConfig(
            f"algorithm: {config.algorithm} sums over a round what its learners send, and {config.scheduler} has no"
            " rounds: choose the scheduler Synchronous or SemiSynchronous",
            key="algorithm",
            got=config.algorithm,
        )
    if config.transforms:
        raise InvalidConfig(
            f"transforms: they bound what an update may change of the model, and what {config.algorithm} sends beside"
            " it would go past them: leave them out, or the algorithm",
            key="transforms",
        )


def allowed(scheduler: str) -> list[str]:
    """Names of the rules that run under a scheduler of the registry."""
    if getattr(SCHEDULERS[scheduler], "streams", False):
        return [name for name, rule in RULES.items() if getattr(rule, "arrivals", None) is not None]
    return [name for name, rule in RULES.items() if getattr(rule, "rounds", True)]


def check_evaluation(config: RunConfig) -> None:
    """Raise InvalidConfig for an evaluation of model 0 that nobody is asked for."""
    plan = config.evaluation
    if plan.who == "driver" and plan.initial:
        raise InvalidConfig(
            'evaluation.initial: model 0 is scored by learners, and evaluation.who is "driver": leave one of them out',
            key="evaluation.initial",
            got=True,
        )


def _refuse_rule(config: RunConfig, why: str) -> None:
    raise InvalidConfig(
        f"aggregation_rule: {config.aggregation_rule} {why}; under {config.scheduler} run"
        f" {', '.join(allowed(config.scheduler))}",
        key="aggregation_rule",
        got=config.aggregation_rule,
    )


def _check_stream(config: RunConfig) -> None:
    """What says who takes part in a round, or when one begins, says nothing to an asynchronous run."""
    plain = RunConfig()
    given = {
        "selector": (config.selector, plain.selector),
        "selection.participation_ratio": (config.selection.participation_ratio, plain.selection.participation_ratio),
        "selection.over_selection": (config.selection.over_selection, plain.selection.over_selection),
        "advance": (config.advance, plain.advance),
        "evaluation.overlap": (config.evaluation.overlap, plain.evaluation.overlap),
    }
    for key, (got, default) in given.items():
        if got != default:
            raise InvalidConfig(
                f"{key}: an Asynchronous run has no rounds to which this could apply: leave it out, or choose the"
                " scheduler Synchronous",
                key=key,
                got=got,
            )
