"""The OpenAPI document of today against those of earlier versions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.witnesses.commands import controller

WITNESSES = sorted(Path(__file__).parent.glob("*/openapi.json"))
VERSION = "/info/version"  # of the program; it names no part of the contract
# What was added to the contract on purpose, as JSON pointers (of a list of words: with the word; of parameters: with
# the name); `*` is any key, where the same was added in many places.
ADDED = frozenset(
    {
        "/info/contact",
        "/info/license",
        "/webhooks",
        "/components/schemas/Problem/properties/type/x-extensible-enum",
        "/paths/*/*/security",  # of calls that need no token: that they need none
        "/paths/*/*/responses/4*",  # errors that were answered and not told
        "/paths/*/*/responses/5*",
        "/paths/*/*/responses/4*/content/*/examples/*",
        "/paths/*/*/responses/5*/content/*/examples/*",
        "/paths/*/*/responses/4*/headers",
        "/paths/*/*/responses/401/headers/WWW-Authenticate/schema/enum/*",
        "/paths/*/get/responses/20*/headers/*",
        "/paths/*/get/responses/304/headers/*",
        "/paths/~1healthz/get/responses/200/content",
        "/paths/~1readyz/get/responses/*/content",
        "/paths/*/head",
        "/paths/*/get/parameters/Range",
        "/paths/*/get/parameters/If-Range",
        "/paths/*/get/parameters/If-None-Match",
        "/paths/*/put/requestBody/content/application~1octet-stream",
        "/paths/~1v1~1tasks~1{task_id}~1scores",
        "/components/schemas/FederationStatus/properties/contract",
        "/components/schemas/FederationStatus/required/contract",
        "/paths/~1v1~1runs~1{run_id}~1rounds~1{number}~1scores",
        "/components/schemas/EvaluationPlan/properties/who",
        "/components/schemas/RunConfig/properties/evaluation/default/who",
        "/paths/~1v1~1learners~1{learner_id}~1task/get/responses/200/content/application~1json/example/config/seed",
        "/components/schemas/Capped",
        "/components/schemas/Failure/properties/traceback",
        "/components/schemas/Learner/properties/health",
        "/components/schemas/Learner/properties/health_reason",
        "/components/schemas/Round/properties/capped",
        "/components/schemas/Round/properties/failure",
        "/components/schemas/RunConfig/properties/schedule/default/factor_cap",
        "/components/schemas/RunConfig/properties/schedule/default/max_failed_rounds",
        "/components/schemas/Schedule/properties/factor_cap",
        "/components/schemas/Schedule/properties/max_failed_rounds",
        "/components/schemas/TaskRecord/properties/traceback",
        "/paths/~1v1~1learners~1{learner_id}~1readmit",
    }
)
# What is told otherwise, though a client of the earlier version works as before: why stands beside it.
OTHERWISE = frozenset(
    {
        ("changed", "/servers/0/url"),  # "." for "./": the same address
        (  # its words: the learner need not be live any more
            "changed",
            "/paths/~1v1~1learners/post/responses/409/content/application~1problem+json/examples/name-taken/value/title",
        ),
        ("gone", "/paths/~1v1~1tasks~1{task_id}~1result/put/requestBody/content/application~1json"),  # taken as ever
    }
)
WORDS = ("description", "summary")  # for people, of anything; a schema's property of such a name is a map, and compared


def unlike(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Where two documents differ: `added`, `gone` or `changed`, and a JSON pointer. Words in a list have no order, nor
    have parameters."""
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(one, str) for one in (*old, *new)):
        old, new = dict.fromkeys(old), dict.fromkeys(new)
    elif isinstance(old, list) and isinstance(new, list) and all(map(is_parameter, (*old, *new))):
        old, new = ({one["name"]: one for one in listed} for listed in (old, new))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new or type(old) is not type(new):
            yield "changed", where
        return
    for key in {**old, **new}:
        if key in WORDS and not isinstance(old.get(key, new.get(key)), dict):
            continue
        place = f"{where}/{str(key).replace('~', '~0').replace('/', '~1')}"
        if key not in old:
            yield "added", place
        elif key not in new:
            yield "gone", place
        else:
            yield from unlike(old[key], new[key], place)


def is_parameter(value: Any) -> bool:
    """Of an operation."""
    return isinstance(value, dict) and {"name", "in"} <= set(value)


def within(place: str, pattern: str) -> bool:
    """Whether a JSON pointer is what a pattern with `*` says."""
    return re.fullmatch("[^/]*".join(map(re.escape, pattern.split("*"))), place) is not None


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As a controller serves it."""
    with controller(tmp_path_factory.mktemp("openapi") / "data") as at:
        return at.http.get("/openapi.json").raise_for_status().json()


@pytest.mark.parametrize("path", WITNESSES, ids=lambda path: path.parent.name)
def test_it_is_the_same_but_for_what_was_added_on_purpose(document: Any, path: Path) -> None:
    """Nothing is gone, nothing has changed but on purpose, and every addition that is listed is really there."""
    found = set(unlike(json.loads(path.read_text(encoding="utf-8")), document)) - {("changed", VERSION)}
    places = {place for how, place in found if how == "added"}
    assert {one for one in found if one[0] != "added"} == OTHERWISE
    assert not {place for place in places if not any(within(place, pattern) for pattern in ADDED)}
    assert not {pattern for pattern in ADDED if not any(within(place, pattern) for place in places)}


def test_differences_are_found() -> None:
    """Worked out by hand."""
    old = {"a": 1, "b": {"required": ["x", "y"], "/c": [{"d": 1}]}, "e": 0}
    new = {"a": 1.0, "b": {"required": ["y", "z", "x"], "/c": [{"d": 2}]}, "f": 0}
    assert set(unlike(old, new)) == {
        ("changed", "/a"),
        ("added", "/b/required/z"),
        ("changed", "/b/~1c/0/d"),
        ("gone", "/e"),
        ("added", "/f"),
    }
    assert not list(unlike(old, {**old}))
    first, second = ({"name": name, "in": "query"} for name in ("x", "y"))
    old, new = {"p": [first], "description": "a", "q": {"description": {"type": "string"}}}, {"p": [second, first]}
    assert set(unlike(old, new)) == {("added", "/p/y"), ("gone", "/q")}
    assert within("/paths/~1v1/get/x", "/paths/*/*/x")
    assert not within("/paths/~1v1/get/y/x", "/paths/*/x")
