"""Parameters of parts: what they may be, and that each says what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any

import pytest

from services.aggregation import RULES
from services.catalogue import entries
from services.encoding import CODECS
from services.parameters import Checked, number, parameters_of, text, whole
from services.transforms import TRANSFORMS

OURS = {"None", "All", "RoundRobin", "ByLabel", "NumParticipants", "Synchronous", "Asynchronous", "none", "bf16"}


@dataclass(frozen=True)
class Part(Checked):
    """For tests."""

    ratio: Annotated[float, number(0, below=0.5, meaning="a share")]
    count: Annotated[int | None, whole(1, meaning="how many; unset: all")] = None
    kind: Annotated[str, text("one", "two", meaning="which")] = "one"
    label: Annotated[str, text(meaning="any")] = "x"
    free: float = 0.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ratio": 0.5}, "ratio must be a finite number of at least 0 and below 0.5, got 0.5"),
        ({"ratio": -0.1}, "at least 0"),
        ({"ratio": math.nan}, "finite number"),
        ({"ratio": True}, "got True"),
        ({"ratio": "0.1"}, "got '0.1'"),
        ({"ratio": None}, "got None"),
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"count": 1.5}, "whole number"),
        ({"count": True}, "whole number"),
        ({"kind": "three"}, "kind must be one of one, two, got 'three'"),
        ({"kind": None}, "kind must be"),
        ({"label": ""}, "label must be a text, got ''"),
        ({"label": 3}, "label must be a text, got 3"),
    ],
)
def test_a_value_that_may_not_be_is_named_with_what_it_may_be(given: dict[str, Any], says: str) -> None:
    """When the part is made."""
    with pytest.raises(ValueError, match=says):
        Part(**{"ratio": 0.1, **given})


def test_what_may_be_is_taken() -> None:
    """Limits that belong to the range, None where it is the default, and what no range is said of."""
    assert Part(0, None, "two", "y", math.inf) == Part(0.0, kind="two", label="y", free=math.inf)
    assert list(parameters_of(Part)) == ["ratio", "count", "kind", "label"]


@pytest.mark.parametrize("registry", [RULES, TRANSFORMS], ids=["rules", "transforms"])
def test_every_parameter_of_a_part_says_its_range_and_meaning(registry: dict[str, Any]) -> None:
    """None is a plain field: `metis rules` would not list it."""
    for name, part in registry.items():
        assert [one.name for one in fields(part)] == list(parameters_of(part)), name


def test_every_part_is_listed_with_what_it_is_for_and_where_it_is_from() -> None:
    """Sources of all but ours, parameters with meanings and defaults."""
    found = {one.name: one for one in entries()}
    assert set(RULES) | set(CODECS) <= set(found)
    assert {name for name, one in found.items() if not one.source} == OURS
    assert all(setting.meaning and setting.range and setting.default for one in entries() for setting in one.settings)
    (ratio,) = found["topk"].settings
    assert (ratio.key, ratio.default, ratio.range) == (
        "encoding.topk_ratio",
        "0.01",
        "a finite number above 0 and at most 1",
    )
    assert found["SemiSynchronous"].settings[0].key == "schedule.semi_sync_lambda"
