"""The OpenAPI document of today against those of earlier versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.witnesses.commands import controller

WITNESSES = sorted(Path(__file__).parent.glob("*/openapi.json"))
VERSION = "/info/version"  # of the program; it names no part of the contract
WORDS = "/description"  # for people, who may be told more
# What was added to the contract on purpose, as JSON pointers (of a list of words: with the word). What was changed or
# taken away has no list: it raises the version, and is told with its migration in CHANGELOG.
ADDED = frozenset(
    {
        "/components/schemas/FederationStatus/properties/contract",
        "/components/schemas/FederationStatus/required/contract",
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


def unlike(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Where two documents differ: `added`, `gone` or `changed`, and a JSON pointer. Words in a list have no order."""
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(one, str) for one in (*old, *new)):
        old, new = dict.fromkeys(old), dict.fromkeys(new)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new or type(old) is not type(new):
            yield "changed", where
        return
    for key in {**old, **new}:
        place = f"{where}/{str(key).replace('~', '~0').replace('/', '~1')}"
        if key not in old:
            yield "added", place
        elif key not in new:
            yield "gone", place
        else:
            yield from unlike(old[key], new[key], place)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As a controller serves it."""
    with controller(tmp_path_factory.mktemp("openapi") / "data") as at:
        return at.http.get("/openapi.json").raise_for_status().json()


@pytest.mark.parametrize("path", WITNESSES, ids=lambda path: path.parent.name)
def test_it_is_the_same_but_for_what_was_added_on_purpose(document: Any, path: Path) -> None:
    """Nothing is gone, nothing has changed, and every addition that is listed is really there."""
    old = json.loads(path.read_text(encoding="utf-8"))
    told = {("changed", place) for _, place in unlike(old, document) if place == VERSION or place.endswith(WORDS)}
    found = set(unlike(old, document)) - told
    assert found == {("added", place) for place in ADDED}


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
