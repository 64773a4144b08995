"""A configuration becomes a run's parts; a name or parameter that there is not is refused with what there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.aggregation import RULES
from services.algorithms import ALGORITHMS
from services.config import RunConfig, resolve
from services.errors import InvalidConfig, UnknownModel
from services.federation import ModelInfo
from services.federation.plan import check_names, initial_model, plan
from services.optimizers import OPTIMIZERS
from services.scaling import SCALERS
from services.scheduling import SCHEDULERS
from services.selection import SELECTORS
from services.transforms.clipping import ClipNorm
from services.transforms.outliers import ZeroOutliers

ENDING = {"termination": {"federation_rounds": 1}}
DIGEST = "sha256-" + "0" * 64
NAMED: dict[str, Mapping[str, Any]] = {
    "aggregation_rule": RULES,
    "scheduler": SCHEDULERS,
    "scaling_factor": SCALERS,
    "selector": SELECTORS,
    "server_optimizer": OPTIMIZERS,
    "algorithm": ALGORITHMS,
}

KRUM = {"min_learners": 5, "aggregation": {"num_byzantine": 1}}
BY_LABEL = {"selection": {"parameters": {"label": "site"}}}
NEEDS: dict[str, dict[str, Any]] = {
    "Krum": KRUM,
    "MultiKrum": KRUM,
    "Bulyan": {"min_learners": 7, "aggregation": {"num_byzantine": 1}},
    "QFedAvg": {"aggregation": {"q": 1, "learning_rate": 0.1}},
    "ByLabel": BY_LABEL,
    "SemiSynchronous": {"schedule": {"semi_sync_lambda": 1}},
    **{rule: {"scheduler": "Asynchronous"} for rule in ("FedRec", "FedAsync", "FedBuff")},
}  # what a part cannot do without


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
    for name in NAMED[key]:
        assert plan(configured(**{key: name}, **NEEDS.get(name, {})))


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


def test_transforms_are_made_in_the_order_given() -> None:
    """Each by its name, with its parameters."""
    given = [{"name": "ZeroOutliers"}, {"name": "ClipNorm", "norm": 2}, {"name": "ClipNorm", "norm": 1.0}]
    assert plan(configured(transforms=given)).transforms == (ZeroOutliers(), ClipNorm(2), ClipNorm(1.0))
    assert plan(configured()).transforms == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "ClipNrom", "norm": 1}, r"transforms\[1\]: there is no 'ClipNrom'; did you mean ClipNorm\?"),
        ({"name": "ClipNorm", "nrm": 1}, r"transforms\[1\]: ClipNorm does not take 'nrm'; did you mean norm\?"),
        ({"name": "ClipNorm"}, r"transforms\[1\]: ClipNorm needs norm"),
        ({"name": "ClipNorm", "norm": -1}, r"transforms\[1\]: ClipNorm does not take .*norm must be"),
        ({"norm": 1}, r"transforms\[1\]: give its name; known: AdaptiveClipNorm, ClipNorm, ZeroOutliers"),
        ({"name": ["ClipNorm"]}, r"transforms\[1\]: give its name"),
        ("ClipNorm", r"transforms\.1: .*\(got 'ClipNorm'\)"),
    ],
)
def test_a_transform_that_there_is_not_is_refused(given: Any, told: str) -> None:
    """The sentence says which of the list it is, and what is nearest."""
    with pytest.raises(InvalidConfig, match=told):
        plan(configured(transforms=[{"name": "ZeroOutliers"}, given]))


def test_a_run_that_cannot_end_is_refused_but_defaults_may_be_open() -> None:
    """A run needs a signal; a controller's defaults need none."""
    with pytest.raises(InvalidConfig, match="no signal"):
        plan(resolve({}, {}))
    assert check_names(resolve({}, {})).aggregator == RULES["FedAvg"]()


def test_a_parameter_that_the_part_needs_is_named() -> None:
    """A rule that cannot guess a number says which."""
    with pytest.raises(InvalidConfig, match="aggregation: Krum needs num_byzantine"):
        plan(configured(aggregation_rule="Krum"))


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ("TrimmedMean", {"trim_ratio": 0.5}),
        ("TrimmedMean", {"trim_ratio": -0.1}),
        ("TrimmedMean", {"trim_ratio": True}),
        ("TrimmedMean", {"trim_ratio": "0.1"}),
        ("Krum", {"num_byzantine": -1}),
        ("Krum", {"num_byzantine": 1.0}),
        ("MultiKrum", {"num_byzantine": 1, "num_selected": 0}),
        ("MultiKrum", {"num_byzantine": True}),
        ("Bulyan", {"num_byzantine": -1}),
        ("FedStride", {"stride_length": 0}),
        ("FedStride", {"stride_length": 2.0}),
        ("GeometricMedian", {"iterations": 0}),
        ("GeometricMedian", {"nu": 0}),
        ("QFedAvg", {"learning_rate": 0.1, "q": -1}),
        ("QFedAvg", {"q": 1, "learning_rate": 0}),
        ("QFedAvg", {"q": 1, "learning_rate": "0.1"}),
    ],
)
def test_a_value_that_cannot_be_is_refused(rule: str, parameters: dict[str, Any]) -> None:
    """The sentence names the rule, the parameter and the value."""
    name, value = list(parameters.items())[-1]
    with pytest.raises(InvalidConfig, match=f"aggregation: {rule} does not take .*{name} must be .* got {value!r}"):
        plan(configured(aggregation_rule=rule, aggregation=parameters, min_learners=100))


def krum(num_byzantine: int, **given: Any) -> RunConfig:
    """A run of Krum."""
    return configured(aggregation_rule="Krum", aggregation={"num_byzantine": num_byzantine}, **given)


def test_a_rule_gets_the_updates_that_it_needs() -> None:
    """Krum with f = 2 needs 2·2 + 3 = 7 learners: a run that may begin a round with 6 is refused, saying so."""
    with pytest.raises(
        InvalidConfig, match=r"needs 7 learners a round, but .* begin with 6: set min_learners"
    ) as caught:
        plan(krum(2, min_learners=6))
    assert caught.value.values == {"key": "min_learners", "expected": 7, "got": 6}
    assert plan(krum(2, min_learners=7))
    assert plan(krum(2, schedule={"min_updates": 7}))
    many = {"num_byzantine": 2, "num_selected": 9}
    with pytest.raises(InvalidConfig, match="needs 9 learners"):
        plan(configured(aggregation_rule="MultiKrum", aggregation=many, min_learners=8))


def test_a_share_of_the_learners_may_be_too_few() -> None:
    """Of 12 learners half are 6; of 13 half are 7. A quorum of 7 is enough whatever the share is."""
    half = {"participation_ratio": 0.5}
    with pytest.raises(InvalidConfig, match=r"begin with 6: set schedule.min_updates to at least 7"):
        plan(krum(2, min_learners=12, selection=half))
    assert plan(krum(2, min_learners=13, selection=half))
    assert plan(krum(2, selection=half, schedule={"min_updates": 7}))


def test_a_controllers_defaults_need_no_learners() -> None:
    """Defaults may name a rule whose number of learners the run will say."""
    assert check_names(resolve({}, {"aggregation_rule": "Krum", "aggregation": {"num_byzantine": 3}}))


def test_an_initial_model_must_have_been_put() -> None:
    """No digest is no model; a digest that is held is that model; another is refused, saying what to do."""
    info, nothing = ModelInfo(DIGEST, 10), dict[str, ModelInfo]()
    assert initial_model(configured(), nothing.get) is None
    assert initial_model(configured(initial_model=DIGEST), {DIGEST: info}.get) == info
    with pytest.raises(UnknownModel, match=f"PUT /v1/models/{DIGEST}"):
        initial_model(configured(initial_model=DIGEST), nothing.get)
