"""A configuration becomes a run's parts; a name or parameter that there is not is refused with what there is."""

from __future__ import annotations

from typing import Any

import pytest

from services.aggregation import RULES
from services.config import RunConfig, resolve
from services.errors import InvalidConfig, UnknownModel
from services.optimizers import OPTIMIZERS
from services.plan import check_names, initial_model, plan
from services.rounds import ModelInfo
from services.scaling import SCALERS
from services.scheduling import SCHEDULERS
from services.selection import SELECTORS

ENDING = {"termination": {"federation_rounds": 1}}
DIGEST = "sha256-" + "0" * 64
NAMED = {
    "aggregation_rule": RULES,
    "scheduler": SCHEDULERS,
    "scaling_factor": SCALERS,
    "selector": SELECTORS,
    "server_optimizer": OPTIMIZERS,
}


def configured(**given: Any) -> RunConfig:
    """A configuration that can end."""
    return resolve(ENDING, given)


def test_the_defaults_make_a_plan() -> None:
    """Each axis is what its registry gives for the configured name."""
    parts = plan(configured())
    assert parts.aggregator == RULES["FedAvg"]()
    assert parts.scheduler == SCHEDULERS["Synchronous"]()
    assert parts.scaler == SCALERS["NumTrainingExamples"]()
    assert parts.selector == SELECTORS["All"]()
    assert parts.optimizer == OPTIMIZERS["None"]()


@pytest.mark.parametrize("key", NAMED)
def test_every_registered_name_can_be_configured(key: str) -> None:
    """A name that is in the registry is one that a user may type."""
    for name in NAMED[key]:  # type: ignore[attr-defined]
        assert plan(configured(**{key: name}))


@pytest.mark.parametrize("key", NAMED)
def test_an_unknown_name_is_refused_with_the_nearest(key: str) -> None:
    """`FedAgv` is answered with FedAvg; something else with all that there is."""
    known = sorted(NAMED[key])
    with pytest.raises(InvalidConfig, match=f"{key}: there is no .*did you mean {known[0]}?") as caught:
        plan(configured(**{key: known[0] + "x"}))
    assert caught.value.values == {"key": key, "got": known[0] + "x"}
    with pytest.raises(InvalidConfig, match=f"known: {', '.join(known)}"):
        plan(configured(**{key: "%%%"}))


@pytest.mark.parametrize("name", ["__class__", "services.aggregation:FedAvg", "fedavg", ""])
def test_a_name_is_only_looked_up_in_the_registry(name: str) -> None:
    """Nothing is imported or evaluated by a name from the network; letters count."""
    with pytest.raises(InvalidConfig, match="aggregation_rule: there is no"):
        plan(configured(aggregation_rule=name))


@pytest.mark.parametrize(("table", "name"), [("aggregation", "FedAvg"), ("optimizer", "None")])
def test_a_parameter_that_the_part_does_not_take_is_refused(table: str, name: str) -> None:
    """The sentence names the table, the part and the parameter."""
    with pytest.raises(InvalidConfig, match=f"{table}: {name} does not take .*trim"):
        plan(configured(**{table: {"trim": 0.2}}))


def test_transforms_are_refused_while_there_are_none() -> None:
    """A transform that would silently not happen is refused."""
    with pytest.raises(InvalidConfig, match="transforms: none is available"):
        plan(configured(transforms=["clip"]))


def test_a_run_that_cannot_end_is_refused_but_defaults_may_be_open() -> None:
    """A run needs a signal; a controller's defaults need none."""
    with pytest.raises(InvalidConfig, match="no signal"):
        plan(resolve({}, {}))
    assert check_names(resolve({}, {})).aggregator == RULES["FedAvg"]()


def test_an_initial_model_must_have_been_put() -> None:
    """No digest is no model; a digest that is held is that model; another is refused, saying what to do."""
    info = ModelInfo(DIGEST, 10)
    assert initial_model(configured(), {}.get) is None
    assert initial_model(configured(initial_model=DIGEST), {DIGEST: info}.get) == info
    with pytest.raises(UnknownModel, match=f"PUT /v1/models/{DIGEST}"):
        initial_model(configured(initial_model=DIGEST), {}.get)
